"""How many callers does this machine hold? Starts the tiny graph, raises the load until the promise is broken, and says
what the planner would have said from the first levels and one that is far too much, without those at the edge.

python -m loadtest.capacity --slo first_audio_p95=500ms,underrun=5% --json FILE

Callers speak over all three protocols, as three tenants, in real time (loadtest/locustfile.py). The server runs at a
lower priority than the load generator, which must not be late. Ends by itself.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from loadtest import machine
from loadtest.listener import Question, ask
from loadtest.load.options import QUESTION
from loadtest.load.run import level_line
from loadtest.plan.calibrate import Calibration, Observed, calibrate
from loadtest.quota_bench import Tenant, tenants_of
from loadtest.server import CHROMA, NoServer, Server, random_checkpoint, room, serving
from loadtest.slo import Slo
from loadtest.usage import OTHERS, Usage

RESULT = Path(__file__).with_name("results") / "load-tiny-cpu.json"
CALIBRATION = 3  # levels
VOID = 3
BUSY_OTHERS = 0.25  # cores; Ray's own agents, and what else an idle machine does, take less
ENOUGH = 0.2  # of an error between the planner and what was measured


def main() -> int:
    options = _options()
    slo = Slo.read(options.slo)
    print(machine.line(machine.machine()), flush=True)
    try:
        with TemporaryDirectory(prefix="capacity-") as name:
            folder = Path(name)
            database = f"sqlite:///{folder}/voices.db"
            subprocess.run([str(CHROMA), "migrate", "--database", database], check=True, capture_output=True)
            tenants = tenants_of(database, [options.most + 8] * 3)
            settings = room(options.most, options.reasoner, options.placement) | {
                "CHROMA_MODELS__INGRESS__AUTH": "true",
                "CHROMA_MODELS__INGRESS__DATABASE_URL": database,
            }
            checkpoint = random_checkpoint(options.checkpoint)
            with serving(checkpoint, folder / "server.log", None, options.nice, **settings) as server:
                asyncio.run(_warm(server.url, tenants[0]))
                result = _measure(server, tenants, options, folder)
    except NoServer as error:
        print(error, file=sys.stderr)
        return 1
    result["settings"] = settings | {"CHROMA_MODELS__INGRESS__DATABASE_URL": "sqlite"}
    result |= compared(result, slo, result.pop("usage"))
    for line in told(result):
        print(line)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {options.json}")
    return VOID if result["void"] else 0


async def _warm(url: str, tenant: Tenant) -> None:
    question = Question.read(QUESTION)
    async with httpx.AsyncClient(timeout=120.0, headers={"authorization": f"Bearer {tenant.key}"}) as client:
        await asyncio.gather(*(ask(client, url, question, seed, 2.0) for seed in range(4)))


def _measure(server: Server, tenants: list[Tenant], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    record = folder / "record.json"
    keys = ",".join(f"{tenant.name}={tenant.key}" for tenant in tenants)
    command = [sys.executable, "-m", "loadtest", "--headless", "--only-summary", "--skip-log-setup"]
    given = {
        "host": server.url, "grpc": server.grpc, "users": options.most, "arrivals": "stairs", "first": options.first,
        "settle-s": options.settle_s, "hold-s": options.hold_s, "reply-s": options.reply_s, "think-s": options.think_s,
        "mix": options.mix, "slo": options.slo, "seed": options.seed, "barge-in": options.barge_in,
        "record": record, "page": options.html or folder / "page.html",
    }  # fmt: skip
    command += [f"--{name}={value}" for name, value in given.items()]
    said = subprocess.DEVNULL if not options.verbose else None
    with Usage(server=server.pid) as usage:
        generator = subprocess.Popen(command, env={**os.environ, "CHROMA_LOAD_KEYS": keys}, stdout=said, stderr=said)
        usage.watch("load generator", generator.pid)
        try:
            _watch(generator)
        finally:
            if generator.poll() is None:
                generator.terminate()
                generator.wait(30)
    result: dict[str, Any] = json.loads(record.read_text())
    del result["records"]
    result["usage"] = [usage.cores(level["begin"], level["end"]) for level in result["levels"]]
    return result


def _watch(generator: "subprocess.Popen[bytes]") -> None:
    began = time.monotonic()
    while generator.poll() is None:
        time.sleep(0.5)
        if sys.stdout.isatty():
            print(f"\r{time.monotonic() - began:4.0f} s", end="", flush=True)


def compared(result: dict[str, Any], slo: Slo, usage: list[dict[str, float]]) -> dict[str, Any]:
    """What the planner says from the first levels and the largest, beside what all of them showed."""
    levels = result["levels"]
    for level, cores in zip(levels, usage, strict=True):
        level["cores"] = {name: round(used, 3) for name, used in cores.items()}
    held, broke = result["held"], result["broke"]
    measured = (held + broke) / 2 if 0 < held < broke <= result["users"] else None
    deciding = [level for level in levels if level["users"] in (held, broke)]
    out: dict[str, Any] = {"capacity": {"held": held, "broke": broke, "callers": measured}}
    lags = [level["lag"] for level in deciding] or [result["lag"]]  # far above the edge it may be late
    out["lag"] = max(lags, key=lambda lag: float(lag["late_share_of_the_worst"]))
    out["void"] = any(lag["void"] for lag in lags)
    out["others"] = round(max((level["cores"].get(OTHERS, 0.0) for level in levels), default=0.0), 2)
    light, full = levels[:CALIBRATION], max(levels, key=lambda level: int(level["users"]))
    calibration = calibrated(light, full, slo, result["options"]["reply_s"])
    if calibration is None:
        return out
    limits = calibration.limits(slo)
    predicted = limits[0].streams
    return out | {
        "predicted": {
            "callers": predicted,
            "limits": [{"callers": limit.streams, "what": limit.what, "stage": limit.stage} for limit in limits],
            "from_levels": [level["users"] for level in light],
            "full_level": full["users"],
            "filled": round(calibration.filled, 1),
            "cores": round(calibration.cores, 3),
            "piece_ms": round(1000 * calibration.pool.piece_s(1), 1),
            "alone_ms": round(1000 * calibration.alone_s, 1),
            "busy_there": round(calibration.pool.busy(predicted), 3),
        },
        "error": None if measured is None else round(predicted / measured - 1, 3),
    }


def calibrated(light: list[dict[str, Any]], full: dict[str, Any], slo: Slo, reply_s: float) -> Calibration | None:
    """From levels that held and one that was far too much. None where they do not suffice."""
    first = slo.find("first_audio")
    share = first.share if first is not None and first.share else 0.95
    observed = [_observed(level, share) for level in light if not level["broken"] and _heard(level)]
    if not full["broken"] or not _heard(full) or len({each.callers for each in observed}) < 2:
        return None
    others = [level["cores"].get(OTHERS, 0.0) for level in light if level["cores"]]
    cores = max(0.1, len(os.sched_getaffinity(0)) - sum(others) / len(others))
    try:
        return calibrate(observed, _observed(full, share), cores, reply_s, share)
    except ValueError as error:
        print(error, file=sys.stderr)
        return None


def _heard(level: dict[str, Any]) -> bool:
    return bool(level["cores"] and level["summary"]["first_audio_s"])


def _observed(level: dict[str, Any], share: float) -> Observed:
    return Observed(
        level["users"],
        {name: used for name, used in level["cores"].items() if name != OTHERS},
        level["speech"],
        level["first_audio_mean_s"],
        level["summary"]["first_audio_s"][f"p{100 * share:g}"],
    )


def told(result: dict[str, Any]) -> list[str]:
    lines = [f"promised      {result['slo']}"]
    for level in result["levels"]:
        used = level["cores"]
        own = sum(value for name, value in used.items() if name != OTHERS)
        lines.append(f"{level_line(level)}; {own:.2f} cores, others {used.get(OTHERS, 0.0):.2f}")
    capacity, predicted = result["capacity"], result.get("predicted")
    if capacity["callers"] is None:
        lines.append(f"measured      {capacity['held']} callers held, and nothing that both held and broke was found")
    else:
        lines.append(
            f"measured      {capacity['callers']:g} callers: {capacity['held']} held, {capacity['broke']} did not"
        )
    if predicted is None:
        lines.append("predicted     nothing: the first levels did not hold, or the largest was not too much")
    else:
        limit = predicted["limits"][0]
        lines.append(
            f"predicted     {predicted['callers']} callers, from {predicted['from_levels']} and "
            f"{predicted['full_level']} callers: {predicted['filled']:g} would keep all cores busy; "
            f"{limit['what']} binds, {limit['stage']} is busiest; {predicted['busy_there']:.0%} of "
            f"{predicted['cores']:.2f} cores"
        )
    if result.get("error") is not None:
        within = "within" if abs(result["error"]) <= ENOUGH else "NOT within"
        lines.append(f"error         {result['error']:+.0%}, {within} {ENOUGH:.0%}")
    if result["others"] > BUSY_OTHERS:
        lines.append(
            f"other work    took up to {result['others']:.2f} cores of this machine: the figures are of what it left"
        )
    if result["void"]:
        late = result["lag"]
        lines.append(
            f"VOID: the load generator was late itself ({late['late_share_of_the_worst']:.1%} of beats over "
            f"{late['limit_ms']:.0f} ms); other work ran on this machine, or it is too small. The figures say nothing."
        )
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.capacity", description=__doc__)
    parser.add_argument("--slo", default="first_audio_p95=500ms,underrun=5%,refused=1%,failed=1%")
    parser.add_argument("--first", type=int, default=6, help="callers of the first level")
    parser.add_argument("--most", type=int, default=80, help="callers of the last")
    parser.add_argument("--settle-s", type=float, default=6.0, help="before a level counts")
    parser.add_argument("--hold-s", type=float, default=18.0, help="how long it counts")
    parser.add_argument("--reply-s", type=float, default=4.0, help="longest reply")
    parser.add_argument("--think-s", type=float, default=2.0, help="pause before a question, on average")
    parser.add_argument("--barge-in", type=float, default=0.1, help="share of replies that a word interrupts")
    parser.add_argument("--mix", default="realtime=6,grpc=2,http=2", help="weights of the protocols")
    parser.add_argument("--reasoner", choices=["vllm", "torch"], default="torch")
    parser.add_argument("--placement", choices=["split", "fused"], default="split", help="of the Decoder")
    parser.add_argument("--nice", type=int, default=5, help="of the server, beside the load generator")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"), help="made if it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--html", type=Path, help="the load test's report")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--verbose", action="store_true", help="show what Locust says")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
