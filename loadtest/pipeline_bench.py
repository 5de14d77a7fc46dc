"""Question audio to PCM in one process, without Ray or vLLM: first audio from commit, RTF, and where the time goes.

Needs torch, numpy, safetensors and transformers, and what those bring. Turns arrive as a Poisson process, each with a
question and a seed of its own, and are listened to at the pace of speech.

python -m loadtest.pipeline_bench --size tiny --streams 1,8,32 --device cpu --json FILE
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chroma_models.checkpoint.in_memory import RandomCheckpoint, RandomWeights
from chroma_models.checkpoint.random import make_checkpoint
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import BackboneConfig, CodecConfig, ReasonerConfig, TorchConfig
from chroma_models.errors import ChromaError
from chroma_models.loading import device_of, dtype_of, set_threads
from chroma_models.stages.pipeline import Pipeline
from chroma_models.types import (
    CODEBOOKS,
    LISTEN_RATE_HZ,
    Audio,
    AudioChunk,
    EncodedVoice,
    Finished,
    Limits,
    Message,
    Sampling,
    Turn,
)
from loadtest import machine
from loadtest.playback import Playback
from loadtest.spread import spread

VOICE_FRAMES = 50
WARM_EVERY = LISTEN_RATE_HZ // 2  # samples between two looks at an unfinished question
TRANSCRIPT = "The quick brown fox jumps over the lazy dog."


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    folder = options.checkpoint or Path("checkpoints") / options.size
    if options.in_memory:
        folder = Path(f"random {options.size} weights")
    elif not (folder / "config.json").exists():
        make_checkpoint(folder, options.size, 0, print)
    config = TorchConfig(device=options.device, dtype=options.dtype, threads=options.threads)
    set_threads(config)
    result: dict[str, Any] = {
        "benchmark": "pipeline",
        "machine": machine.machine(),
        "load_average": os.getloadavg()[0],
        "checkpoint": str(folder),
        "device": str(device_of(config)),
        "dtype": str(dtype_of(config)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "question_s": options.question_s,
        "reply_s": options.reply_s,
        "seed": options.seed,
    }
    print(machine.line(result["machine"]))
    print(f"{folder} on {result['device']}, {result['dtype']}, {result['threads']} threads", flush=True)
    with tempfile.TemporaryDirectory() as configs:
        if options.in_memory:
            weights = RandomWeights(options.size, options.seed, quick=options.size == "full")
            checkpoint: Checkpoint = RandomCheckpoint(Path(configs), weights)
        else:
            checkpoint = Checkpoint.open(folder)
        result["by_streams"] = asyncio.run(_measure(options, checkpoint, config))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(not entry["errors"] for entry in result["by_streams"]) else 1


async def _measure(options: argparse.Namespace, checkpoint: Checkpoint, config: TorchConfig) -> list[dict[str, Any]]:
    counts = [int(count) for count in options.streams.split(",")]
    most = max(counts)
    patience = {"admit_timeout_s": 60.0, "first_audio_timeout_s": 60.0, "stall_timeout_s": 60.0}
    reasoner = ReasonerConfig(engine="torch", slots=most, max_model_len=options.max_model_len, **patience)
    backbone = BackboneConfig(slots=most, **patience)
    codec = CodecConfig(slots=most, **patience)
    measured = []
    async with Pipeline.open(checkpoint, config, reasoner=reasoner, backbone=backbone, codec=codec) as pipeline:
        await Arrivals(pipeline, options, random.Random(options.seed)).run(min(most, 4), 0.1)  # warm
        if options.questions:
            return [await _overheard(pipeline, options, float(length)) for length in options.questions.split(",")]
        for count in counts:
            arrivals = Arrivals(pipeline, options, random.Random(options.seed + count))
            measured.append(await arrivals.run(count, options.arrive_s if count > 1 else 0.0))
            _show(measured[-1])
    return measured


async def _overheard(pipeline: Pipeline, options: argparse.Namespace, question_s: float) -> dict[str, Any]:
    """First audio after a question of one length, in turns heard as a whole and read while it was spoken."""
    arrivals = Arrivals(pipeline, options, random.Random(options.seed + int(question_s)))
    first: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * options.rounds):
        warm = bool(number % 2)
        turn = arrivals.build(number, question_s)
        if warm:
            for end in range(WARM_EVERY, int(question_s * LISTEN_RATE_HZ), WARM_EVERY):
                await pipeline.reasoner.warm(until(turn, end))
        player = await arrivals.hear(turn)
        if player.first_audio_s is not None:
            first[warm].append(player.first_audio_s)
    cold, ahead = spread(first[False]), spread(first[True])
    if cold and ahead:
        told = f"{1000 * cold['p50']:.1f} ms p50, {1000 * ahead['p50']:.1f} when it was read while spoken"
        print(f"{question_s:5g} s question: first audio {told}", flush=True)
    errors = sorted(arrivals.errors)
    return {"question_s": question_s, "errors": errors, "first_audio_s": cold, "first_audio_warm_s": ahead}


def until(turn: Turn, samples: int) -> Turn:
    """The turn as it would be if the user had stopped there."""
    (clip,) = turn.messages[-1].parts
    assert isinstance(clip, Audio)
    return replace(turn, messages=(Message("user", (Audio(clip.pcm[: 2 * samples]),)),))


class Arrivals:
    """Turns that begin by themselves, whether the ones before have ended or not."""

    def __init__(self, pipeline: Pipeline, options: argparse.Namespace, rng: random.Random) -> None:
        self._pipeline, self._options, self._rng = pipeline, options, rng
        self._timing: dict[str, float] = {}
        self.errors: set[str] = set()

    async def run(self, count: int, over_s: float) -> dict[str, Any]:
        """count turns, arriving at random over over_s seconds on average. One stream alone is asked several times."""
        spine, mimi = self._pipeline.backbone.engine, self._pipeline.codec.engine.thread
        before = (spine.steps, spine.step_rows, spine.step_s, mimi.step_seconds)
        began, cpu = time.monotonic(), time.process_time()
        if count == 1:
            heard = [await self._turn(i) for i in range(self._options.rounds)]
        else:
            tasks = []
            for i in range(count):
                tasks.append(asyncio.create_task(self._turn(i)))
                await asyncio.sleep(self._rng.expovariate(count / over_s) if over_s else 0.0)
            heard = await asyncio.gather(*tasks)
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
        audio_s = sum(player.audio_s for player in heard)
        steps = spine.steps - before[0]
        return {
            "streams": count,
            "turns": len(heard),
            "errors": sorted(self.errors),
            "first_audio_s": spread([s for p in heard if (s := p.first_audio_s) is not None]),
            "rtf": spread([s for p in heard if (s := p.rtf) is not None]),
            "underruns": sum(p.underruns for p in heard),
            "underrun_ms": round(1000 * sum(p.underrun_s for p in heard), 1),
            "turns_with_underrun": sum(p.underruns > 0 for p in heard),
            "wall_s": round(wall_s, 3),
            "audio_s": round(audio_s, 2),
            "audio_s_per_s": round(audio_s / wall_s, 2),
            "cpu_cores": round(cpu_s / wall_s, 2),
            "rows_per_step": round((spine.step_rows - before[1]) / steps, 1) if steps else 0.0,
            "busy_share": {
                "backbone and decoder": round((spine.step_s - before[2]) / wall_s, 3),
                "codec": round((mimi.step_seconds - before[3]) / wall_s, 3),
            },
            "stage_s_per_turn": {name: round(s / len(heard), 4) for name, s in sorted(self._timing.items())},
        }

    async def _turn(self, number: int) -> Playback:
        return await self.hear(self.build(number, self._options.question_s))

    async def hear(self, turn: Turn) -> Playback:
        player = Playback(time.monotonic())
        try:
            async with aclosing(self._pipeline.codec.speak(turn)) as items:
                async for item in items:
                    if isinstance(item, AudioChunk) and item.pcm:
                        player.heard(len(item.pcm) // 2, time.monotonic())  # float32 here, int16 there
                    elif isinstance(item, Finished):
                        for name, spent_s in item.timing.items():
                            self._timing[name] = self._timing.get(name, 0.0) + spent_s
        except ChromaError as error:
            self.errors.add(f"{type(error).__name__}: {error}")
        return player

    def build(self, number: int, question_s: float) -> Turn:
        """A turn that no cache knows."""
        draw = np.random.default_rng(self._rng.getrandbits(32))
        samples = draw.normal(0, 3000, int(question_s * LISTEN_RATE_HZ)).astype(np.int16)
        codes = draw.integers(0, 2048, (VOICE_FRAMES, CODEBOOKS)).astype(np.int16) % self._codebook
        voice = EncodedVoice(TRANSCRIPT, codes.astype(np.int16).tobytes(), f"voice-{number}")
        return Turn(
            id=f"turn-{number}-{self._rng.getrandbits(32):x}",
            affinity="",
            messages=(Message("user", (Audio(samples.tobytes()),)),),
            voice=voice,
            sampling=Sampling(seed=self._rng.getrandbits(31), temperature=0.8),
            limits=Limits(max_reply_s=self._options.reply_s),
        )

    @property
    def _codebook(self) -> int:
        return self._pipeline.checkpoint.architecture.codec.codebook_size


def _show(entry: dict[str, Any]) -> None:
    first, rtf = entry["first_audio_s"], entry["rtf"]
    if not first:
        print(f"{entry['streams']:5d} streams: silent; {entry['errors'][:3]}", flush=True)
        return
    gaps = f"{entry['turns_with_underrun']} of {entry['turns']} with gaps, {entry['underrun_ms']:.0f} ms"
    print(
        f"{entry['streams']:5d} streams: first audio {1000 * first['p50']:.0f} ms p50, {1000 * first['p95']:.0f} p95; "
        f"RTF {rtf['p50']:.3f} p50, {rtf['p95']:.3f} p95; {gaps}; {entry['audio_s_per_s']:.1f} s of speech a second, "
        f"{entry['rows_per_step']:.1f} rows a step"
    )
    shares = [f"{name} {share:.0%}" for name, share in entry["busy_share"].items()]
    stages = [f"{name} {1000 * s:.0f} ms" for name, s in entry["stage_s_per_turn"].items()]
    print(f"      busy: {', '.join(shares)}; per turn: {', '.join(stages)}", flush=True)
    for error in entry["errors"][:3]:
        print(f"      {error}")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.pipeline_bench", description=__doc__)
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="tiny", help="of random weights")
    parser.add_argument("--checkpoint", type=Path, help="instead of random weights")
    parser.add_argument("--in-memory", action="store_true", help="random weights that are not written to a disk")
    parser.add_argument("--streams", default="1,8,32", help="turns of each measurement, with commas")
    parser.add_argument("--arrive-s", type=float, default=2.0, help="over which the turns of one measurement arrive")
    parser.add_argument("--rounds", type=int, default=5, help="turns, one after another, where there is one stream")
    parser.add_argument("--question-s", type=float, default=3.0)
    parser.add_argument(
        "--questions", help="instead: first audio after questions so long, as 2,5,10,30, read ahead or not"
    )
    parser.add_argument("--reply-s", type=float, default=4.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, help="of torch; by default a quarter of the cores on a CPU")
    parser.add_argument("--max-model-len", type=int, default=1024, help="positions of the Reasoner's cache per stream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
