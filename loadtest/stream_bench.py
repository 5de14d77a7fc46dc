"""Several turns at once through the public API: when speech begins, whether it keeps up, and whether it streams.

python -m loadtest.stream_bench --streams 8 --rounds 5 --json FILE
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from loadtest import machine
from loadtest.listener import Heard, Question, ask
from loadtest.server import NoServer, random_checkpoint, serving
from loadtest.spread import spread

QUESTION = Path(__file__).resolve().parent.parent / "deployments" / "ingress" / "voices" / "question.wav"
FIRST_AUDIO_S = 0.5  # what eight turns at once are held to, on two quiet cores


def main() -> int:
    options = _options()
    if options.url:
        return asyncio.run(_measure(options, options.url, {}))
    settings = {} if options.reasoner is None else {"CHROMA_MODELS__REASONER__ENGINE": options.reasoner}
    if options.placement:
        settings["CHROMA_MODELS__PLACEMENT"] = options.placement
    checkpoint = random_checkpoint(options.checkpoint)
    with TemporaryDirectory(prefix="stream-bench-") as folder:
        try:
            with serving(checkpoint, Path(folder) / "server.log", **settings) as server:
                return asyncio.run(_measure(options, server.url, settings))
        except NoServer as error:
            print(error, file=sys.stderr)
            return 1


async def _measure(options: argparse.Namespace, url: str, settings: dict[str, str]) -> int:
    rng = random.Random(options.seed)
    question = Question.read(options.question)
    if options.question_s:
        question = question.lasting(options.question_s)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    heard: list[Heard] = []
    started = time.monotonic()
    async with httpx.AsyncClient(timeout=60.0, limits=limits) as client:
        for number in range(options.rounds + 1):
            questions = [question.varied(rng) for _ in range(options.streams)]
            turns = [ask(client, url, q, rng.getrandbits(31), options.reply_s) for q in questions]
            round_ = await asyncio.gather(*turns)
            print(f"{'warm-up' if number == 0 else f'round {number}'}: {_line(round_)}", flush=True)
            heard += round_ if number else []
    result = {
        "benchmark": "stream",
        "machine": machine.machine(),
        "load_average": os.getloadavg()[0],
        "settings": settings,
        "url": bool(options.url),
        "seed": options.seed,
        "streams": options.streams,
        "rounds": options.rounds,
        "question_s": round(len(question.samples) / question.rate_hz, 3),
        "reply_s": options.reply_s,
        "took_s": round(time.monotonic() - started, 1),
        **summary(heard),
    }
    _show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["streamed"] == len(heard) else 1


def summary(heard: list[Heard]) -> dict[str, Any]:
    """What all turns together show. First audio counts from the request, RTF to the last audio."""
    stages: dict[str, list[float]] = {}
    for turn in heard:
        for name, spent_s in turn.server.get("stages", {}).items():
            stages.setdefault(name, []).append(spent_s)
    return {
        "turns": len(heard),
        "streamed": sum(turn.streamed for turn in heard),
        "errors": sorted({turn.error for turn in heard if turn.error}),
        "first_audio_s": spread([s for t in heard if (s := t.playback.first_audio_s) is not None]),
        "rtf": spread([s for t in heard if (s := t.playback.rtf) is not None]),
        "underruns": sum(t.playback.underruns for t in heard),
        "underrun_ms": round(1000 * sum(t.playback.underrun_s for t in heard), 1),
        "turns_with_underrun": sum(t.playback.underruns > 0 for t in heard),
        "pieces_min": min((t.pieces for t in heard), default=0),
        "server_first_audio_s": spread([s for t in heard if (s := t.server.get("first_audio_s")) is not None]),
        "stages_s": {name: spread(values) for name, values in stages.items()},
    }


def _line(heard: list[Heard]) -> str:
    told = summary(heard)
    first, rtf = told["first_audio_s"], told["rtf"]
    times = (
        f"first audio {milliseconds(first['p50'])} p50, {milliseconds(first['max'])} max, RTF {rtf['p50']:.2f}"
        if first
        else "silent"
    )
    return f"{times}, {told['streamed']} of {told['turns']} streamed, {told['underruns']} underruns"


def _show(result: dict[str, Any]) -> None:
    first, rtf = result["first_audio_s"], result["rtf"]
    print(f"\n{machine.line(result['machine'])}")
    print(
        f"{result['streams']} streams at once, {result['rounds']} rounds, seed {result['seed']}, {result['settings']}"
    )
    print(f"streamed      {result['streamed']} of {result['turns']} turns, in {result['pieces_min']} pieces or more")
    if first:
        named = ", ".join(f"{name} {milliseconds(first[name])}" for name in ("min", "p50", "p95", "max"))
        print(f"first audio   {named} after the request (p95 wanted: {milliseconds(FIRST_AUDIO_S)})")
        print(f"RTF           p50 {rtf['p50']:.3f}, p95 {rtf['p95']:.3f} (the server stays at most 4 s ahead)")
    print(f"underruns     {result['underruns']}, {result['underrun_ms']:.0f} ms in all")
    for name, values in result["stages_s"].items():
        print(f"  {name:<22} p50 {milliseconds(values['p50']):>8}, p95 {milliseconds(values['p95']):>8}")
    for error in result["errors"]:
        print(f"error         {error}")


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.stream_bench", description=__doc__)
    parser.add_argument("--url", help="a running server; by default one is started, and ended afterwards")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"), help="made if it is not there")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="after one that warms up")
    parser.add_argument("--reply-s", type=float, default=4.0, help="longest reply")
    parser.add_argument("--question", type=Path, default=QUESTION, help="16-bit mono wav")
    parser.add_argument("--question-s", type=float, help="repeat or cut the question to this length")
    parser.add_argument("--reasoner", choices=["vllm", "torch"], help="engine of the server that is started")
    parser.add_argument("--placement", choices=["split", "fused"], help="of its Decoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
