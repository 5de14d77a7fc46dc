"""Live conversations at once through the whole graph, as people have them: microphones that never stop, turns found by
voice activity, pauses to think, replies interrupted by a word and by a message.

python -m loadtest.realtime_bench --sessions 50 --turns 2 --json FILE

Each session asks --turns questions, then interrupts a reply by speaking, and cancels one. A session fails where an
event is missing, out of order or another session's, a reply fails, or the connection ends. First audio counts from the
commit as the client sees it, response latency from the end of speech; both hold the client's own lateness, which is
told. Interruptions count from the first loud sample at the microphone, or from the message, to the last event.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np
import uvloop
from numpy.typing import NDArray

from loadtest import machine
from loadtest.crowd import Lateness
from loadtest.live_session import LiveSession, Reply, Unheard
from loadtest.microphone import recording
from loadtest.processes import cpu_s
from loadtest.server import NoServer, random_checkpoint, room, serving
from loadtest.spread import spread
from loadtest.stream_bench import QUESTION, milliseconds

VOICE_MS, MESSAGE_MS = 200, 50  # wanted: until a reply has stopped
PLAYED_S = 1.0  # of a reply, before it is interrupted
LONG_S = 12.0  # longest reply that is interrupted; more than the graph is ahead of the listener


@dataclass(frozen=True)
class Plan:
    """What everybody does. Seconds."""

    sessions: int
    turns: int
    reply_s: float
    think_s: float
    join_s: float  # they come evenly over so long
    piece_s: float
    seed: int


@dataclass
class Told:
    """What one session was like."""

    heard_out: list[Reply] = field(default_factory=list)
    interrupted: list[Reply] = field(default_factory=list)  # by voice
    cancelled: list[Reply] = field(default_factory=list)  # by a message
    faults: list[str] = field(default_factory=list)
    late_s: float = 0.0


async def converse(url: str, plan: Plan, question: NDArray[np.int16]) -> dict[str, Any]:
    """All sessions; returns what they show together."""
    rng, owners, late = random.Random(plan.seed), dict[str, int](), Lateness()
    beating = asyncio.create_task(late.beat())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        told = await asyncio.gather(
            *(
                _one(
                    LiveSession(client, url, number, owners, plan.piece_s), number, plan, question, rng.getrandbits(31)
                )
                for number in range(plan.sessions)
            )
        )
    beating.cancel()
    return {**_summary(told), "client_late_ms": round(1000 * max(late.longest_s, *(t.late_s for t in told)), 1)}


async def _one(session: LiveSession, number: int, plan: Plan, question: NDArray[np.int16], seed: int) -> Told:
    told, rng = Told(), random.Random(seed)
    await asyncio.sleep(plan.join_s * number / plan.sessions)
    try:
        async with session:
            await session.configure(plan.reply_s)
            for _ in range(plan.turns):
                told.heard_out.append(await _ask(session, plan, question, rng))
                await session.played(told.heard_out[-1])
            await session.configure(LONG_S)
            told.interrupted.append(await _ask(session, plan, question, rng))
            await session.played(told.interrupted[-1], PLAYED_S)
            told.cancelled.append(await session.interrupt(told.interrupted[-1], _varied(question, rng)))
            await session.played(told.cancelled[-1], PLAYED_S)
            await session.cancel(told.cancelled[-1])
    except (aiohttp.ClientError, OSError, TimeoutError, Unheard) as error:
        told.faults.append(f"{type(error).__name__}: {error}")
    told.faults += session.faults + session.order.faults
    told.faults += [f"{reply.status}: {reply.reason}" for reply in told.heard_out if reply.status == "failed"]
    told.faults += [
        f"a reply that was to be cut short was {reply.status}"
        for reply in told.interrupted + told.cancelled
        if reply.status != "cancelled"
    ]
    if not told.faults:
        told.faults += session.order.unfinished()
    told.late_s = session.microphone.late_s if hasattr(session, "microphone") else 0.0
    return told


async def _ask(session: LiveSession, plan: Plan, question: NDArray[np.int16], rng: random.Random) -> Reply:
    await asyncio.sleep(rng.uniform(0.5, 1.5) * plan.think_s)
    return await session.ask(_varied(question, rng))


def _varied(question: NDArray[np.int16], rng: random.Random) -> NDArray[np.int16]:
    """Quieter by a little, so that no cache knows it."""
    return (question * rng.uniform(0.7, 1.0)).astype(np.int16)


def _summary(told: list[Told]) -> dict[str, Any]:
    heard = [reply for one in told for reply in one.heard_out]
    cut = [reply for one in told for reply in (*one.interrupted, *one.cancelled)]
    voice = [reply for one in told for reply in one.interrupted]
    message = [reply for one in told for reply in one.cancelled]
    return {
        "failed": sum(bool(one.faults) for one in told),
        "faults": sorted({fault for one in told for fault in one.faults}),
        "turns": len(heard) + len(cut),
        "audio_s": round(sum(reply.playback.audio_s for reply in heard + cut), 1),
        "first_audio_s": spread([s for reply in heard + cut if (s := reply.first_audio_s) is not None]),
        "response_latency_s": spread([s for reply in heard + cut if (s := reply.latency_s) is not None]),
        "underruns": sum(reply.playback.underruns for reply in heard),
        "underrun_ms": round(1000 * sum(reply.playback.underrun_s for reply in heard), 1),
        "turns_with_underrun": sum(reply.playback.underruns > 0 for reply in heard),
        "heard_out": len(heard),
        "interrupted_ms": spread([1000 * s for reply in voice if (s := reply.silence_s) is not None], 1),
        "cancelled_ms": spread([1000 * s for reply in message if (s := reply.silence_s) is not None], 1),
    }


def _show(result: dict[str, Any]) -> None:
    first, latency = result["first_audio_s"], result["response_latency_s"]
    print(f"sessions      {result['plan']['sessions']}, {result['failed']} failed; {result['turns']} turns")
    for name, values in (("first audio", first), ("latency", latency)):
        if values:
            print(f"{name:13s} " + ", ".join(f"{key} {milliseconds(values[key])}" for key in ("p50", "p95", "max")))
    print(
        f"underruns     {result['underruns']} in {result['turns_with_underrun']} of {result['heard_out']} turns heard "
        f"out, {result['underrun_ms']:.0f} ms"
    )
    for name, wanted in (("interrupted", VOICE_MS), ("cancelled", MESSAGE_MS)):
        if values := result[f"{name}_ms"]:
            told = ", ".join(f"{key} {values[key]:.0f}" for key in ("p50", "p95", "max"))
            print(f"{name:13s} {told} ms until silent (wanted: under {wanted})")
    print(f"client        at most {result['client_late_ms']:.0f} ms late")
    if "cores_used" in result:
        print(f"server        {result['cores_used']:.2f} cores")
    for fault in result["faults"][:10]:
        print(f"fault         {fault}")


def main() -> int:
    options = _options()
    plan = Plan(
        options.sessions, options.turns, options.reply_s, options.think_s, options.join_s, options.piece_s, options.seed
    )
    question = recording(options.question)
    result: dict[str, Any] = {"benchmark": "realtime", "machine": machine.machine(), "plan": vars(plan)}
    result["load_average"] = os.getloadavg()[0]
    print(machine.line(result["machine"]), flush=True)
    if options.url:
        result |= uvloop.run(converse(options.url, plan, question))
    else:
        settings = room(options.sessions, options.reasoner, options.placement)
        result["settings"] = settings
        checkpoint = random_checkpoint(options.checkpoint)
        try:
            with (
                TemporaryDirectory(prefix="realtime-bench-") as folder,
                serving(checkpoint, Path(folder) / "server.log", **settings) as server,
            ):
                url = server.url.replace("http", "ws", 1)
                uvloop.run(converse(url, Plan(2, 1, 1.0, 0.2, 0.2, plan.piece_s, plan.seed), question))  # warms up
                before, began = sum(cpu_s(server.pid).values()), time.monotonic()
                result |= uvloop.run(converse(url, plan, question))
                result["took_s"] = round(time.monotonic() - began, 1)
                result["cores_used"] = round((sum(cpu_s(server.pid).values()) - before) / result["took_s"], 2)
        except NoServer as error:
            print(error, file=sys.stderr)
            return 1
    _show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["failed"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.realtime_bench", description=__doc__)
    parser.add_argument("--url", help="ws://HOST:PORT of a running server; by default one is started, and ended again")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--turns", type=int, default=2, help="heard out, before one is interrupted and one cancelled")
    parser.add_argument("--reply-s", type=float, default=4.0, help="longest reply that is heard out")
    parser.add_argument("--think-s", type=float, default=4.0, help="mean pause before a question")
    parser.add_argument("--join-s", type=float, default=12.0, help="sessions come evenly over so long")
    parser.add_argument("--piece-s", type=float, default=0.08, help="of the microphone's audio in one event")
    parser.add_argument("--placement", choices=["split", "fused"], default="split", help="of the Decoder")
    parser.add_argument("--reasoner", choices=["vllm", "torch"], default="vllm")
    parser.add_argument("--question", type=Path, default=QUESTION, help="16-bit mono wav")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"), help="made if it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
