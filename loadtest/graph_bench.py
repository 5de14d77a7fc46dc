"""What the graph itself costs, and how many listeners it keeps supplied.

First the hops alone, without models (`chroma bench-graph`): how old an item is after 1, 2 and 3 hops, and CPU per item
and side. Then the whole graph on a checkpoint: listeners in real time, more and more of them until one hears a gap,
with first audio and RTF per stream and CPU per stream-second of every process, for each placement of the Decoder.

python -m loadtest.graph_bench --streams 1,50,100,200 --listeners 8,25,50,75,100 --json FILE
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

from loadtest import machine
from loadtest.crowd import Crowd
from loadtest.listener import Question
from loadtest.processes import cpu_s
from loadtest.server import CHROMA, NoServer, Server, random_checkpoint, room, serving
from loadtest.stream_bench import QUESTION, milliseconds, summary

HOP_MS, SIDE_US = 1.0, 150.0  # wanted at 100 streams on two cores
TRIES = 3


def main() -> int:
    options = _options()
    result: dict[str, Any] = {"benchmark": "graph", "machine": machine.machine(), "seed": options.seed}
    result["load_average"] = os.getloadavg()[0]
    print(machine.line(result["machine"]), flush=True)
    try:
        if options.streams:
            result["item_hz"] = options.item_hz
            result["hops"] = hops(options)
        if options.listeners:
            result["real_time"] = [
                real_time(options, reasoner, placement)
                for reasoner in options.reasoner.split(",")
                for placement in options.placement.split(",")
            ]
    except NoServer as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def hops(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The chain without models."""
    with TemporaryDirectory(prefix="graph-bench-") as folder:
        out = Path(folder) / "hops.json"
        asked = ["--streams", options.streams, "--seconds", str(options.seconds), "--rate-hz", str(options.item_hz)]
        subprocess.run([CHROMA, "bench-graph", str(out), *asked], check=True, stderr=subprocess.DEVNULL)
        measured: list[dict[str, Any]] = json.loads(out.read_text())
    print(f"\nhops, 4 KB items, {options.item_hz:g} a second on each stream (wanted at 100: {HOP_MS} ms, {SIDE_US} us)")
    for entry in measured:
        if "streams" not in entry:
            told = ", ".join(f"{rows} rows {ms['p50']:.1f} ms" for rows, ms in entry["unary_ms_by_rows"].items())
            print(f"one call to a split Decoder: {told}")
            continue
        ages = entry["age_ms_after_hops"]
        sides = ", ".join(f"{name} {us:.0f}" for name, us in entry["cpu_us_per_item_and_side"].items())
        last = ages[max(ages)]
        print(
            f"{entry['streams']:4d} streams: hop {entry['hop_ms_p50']:.2f} ms p50; after {max(ages)} hops "
            f"{last['p50']:.2f} p50, {last['p99']:.2f} p99; CPU us per item and side: {sides}",
            flush=True,
        )
    return measured


def real_time(options: argparse.Namespace, reasoner: str, placement: str) -> dict[str, Any]:
    """More and more listeners on one server, until one of them hears a gap or an error."""
    counts = [int(count) for count in options.listeners.split(",")]
    settings = room(max(counts), reasoner, placement)
    checkpoint = random_checkpoint(options.checkpoint)
    question = Question.read(QUESTION)
    print(f"\nlisteners in real time, {reasoner} Reasoner, {placement} Decoder, {checkpoint}", flush=True)
    measured: list[dict[str, Any]] = []
    with (
        TemporaryDirectory(prefix="graph-bench-") as folder,
        serving(checkpoint, Path(folder) / "server.log", **settings) as server,
    ):
        asyncio.run(Crowd(4, 2.0, 1).listen(server.url, question))
        for count in counts:
            crowd = Crowd(count, options.reply_s, options.turns, options.seed)
            for _ in range(TRIES):  # one gap may be another program's doing
                measured.append(asyncio.run(_listen(crowd, server, question)))
                if measured[-1]["held"]:
                    break
            else:
                if not options.all:
                    break
    held = {entry["listeners"] for entry in measured if entry["held"]}
    broke = {entry["listeners"] for entry in measured} - held
    return {
        "reasoner": reasoner,
        "placement": placement,
        "reply_s": options.reply_s,
        "turns_each": options.turns,
        "held_at": max(held, default=0),
        "broke_at": min(broke, default=None),
        "by_listeners": measured,
    }


async def _listen(crowd: Crowd, server: Server, question: Question) -> dict[str, Any]:
    before, started = cpu_s(server.pid), time.monotonic()
    heard, late_s = await crowd.listen(server.url, question)
    took_s, after = time.monotonic() - started, cpu_s(server.pid)
    audio_s = sum(turn.playback.audio_s for turn in heard) or 1.0
    spent = {name: after[name] - before.get(name, 0.0) for name in sorted(after)}
    entry = {
        "listeners": crowd.listeners,
        "took_s": round(took_s, 1),
        "audio_s": round(audio_s, 1),
        "client_late_ms": round(1000 * late_s, 1),
        "cores_used": round(sum(spent.values()) / took_s, 2),
        "cpu_us_per_stream_s": {name: round(1e6 * s / audio_s) for name, s in spent.items() if s > 0},
        **summary(heard),
    }
    entry["held"] = not entry["errors"] and not entry["turns_with_underrun"] and entry["streamed"] == entry["turns"]
    _show(entry)
    return entry


def _show(entry: dict[str, Any]) -> None:
    first, rtf = entry["first_audio_s"], entry["rtf"]
    times = f"first audio {milliseconds(first['p50'])} p50, {milliseconds(first['p95'])} p95" if first else "silent"
    gaps = f"{entry['turns_with_underrun']} of {entry['turns']} turns with gaps, {entry['underrun_ms']:.0f} ms"
    pace = f", RTF {rtf['p95']:.2f} p95" if rtf else ""
    print(
        f"{entry['listeners']:4d}: {'held ' if entry['held'] else 'BROKE'} {times}{pace}, {gaps}, "
        f"{entry['cores_used']:.2f} cores, client at most {entry['client_late_ms']:.0f} ms late"
    )
    print("      us per stream-second: " + ", ".join(f"{n} {us}" for n, us in entry["cpu_us_per_stream_s"].items()))
    for error in entry["errors"][:3]:
        print(f"      {error}")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.graph_bench", description=__doc__)
    parser.add_argument("--streams", default="1,50,100,200", help="of the hops alone; empty leaves them out")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement of the hops")
    parser.add_argument("--item-hz", type=float, default=12.5, help="items a second on each stream of the hops")
    parser.add_argument("--listeners", default="8,25,50,75,100,125,150", help="empty leaves them out")
    parser.add_argument("--reply-s", type=float, default=12.0)
    parser.add_argument("--turns", type=int, default=2, help="replies each listener hears")
    parser.add_argument("--placement", default="split,fused")
    parser.add_argument("--reasoner", default="vllm", help="vllm, torch or both with a comma")
    parser.add_argument("--all", action="store_true", help="go on after the first gap")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"), help="made if it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
