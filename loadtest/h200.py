"""Everything that only a GPU can show, at full size with random weights, in one process: the model is made once.

    python -m loadtest.h200 --out loadtest/results/h200 --parts check,fused,pipeline --budget-s 300

Needs a bare machine with torch 2.11 or newer, transformers, numpy and safetensors; no network, no checkpoint. A part
that fails is told and does not stop the next; a part is not begun once the budget is spent. The exit code says whether
all ran.
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import cast

import torch

from chroma_models.checkpoint.sizes import Size
from loadtest import engine_bench, pipeline_bench
from loadtest.engine_streams import Model
from loadtest.kernels import attention, bf16, captures, profile
from loadtest.machine import line, machine
from loadtest.timing import Roofline, write_json

SMALL, LARGE = "1,8,32", "64,128,256,512"


class Card:
    """What the parts share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.size, self.out, self.device = cast("Size", options.size), options.out, torch.device(options.device)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.machine = machine()
        self.roofline = Roofline.measure(self.device, self.dtype)
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        if self._model is None:
            self._model = Model(self.size, 0, self.device, self.dtype)
        return self._model

    def forget(self) -> None:
        """Give the model's memory to a part that has one of its own."""
        self._model = None
        free()


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def engine(card: Card, name: str, argv: list[str]) -> int:
    """One run of the engine benchmark, written after every batch: what was measured is not lost to what comes next."""
    asked = ["--size", card.size, "--device", card.device.type, *argv]
    args = engine_bench.parse(asked)
    results = []
    for batch in args.batch:
        free()
        results.append(engine_bench.bench(card.model, card.roofline, batch, args))
        print(engine_bench.table(results[-1:]), flush=True)
        facts: dict[str, object] = {
            "size": card.size,
            "dtype": str(card.dtype).removeprefix("torch."),
            "roofline": asdict(card.roofline),
        }
        facts |= {"batches": [asdict(result) for result in results]}
        command = ["python", "-m", "loadtest.engine_bench", *asked]
        write_json(card.out / f"{name}.json", command, card.machine, 0, facts)
    return 0


def pipeline(card: Card, name: str, argv: list[str]) -> int:
    card.forget()
    where = ["--size", card.size, "--device", card.device.type, "--in-memory"]
    return pipeline_bench.main([*where, *argv, "--json", str(card.out / f"{name}.json")])


def parts(card: Card) -> dict[str, Callable[[], int]]:
    """By name, in the order in which they run."""
    device, size = ["--device", card.device.type], ["--size", card.size]

    def bench(name: str, argv: str) -> Callable[[], int]:
        return partial(engine, card, name, argv.split())

    def speech(name: str, argv: str) -> Callable[[], int]:
        return partial(pipeline, card, name, argv.split())

    return {
        "check": lambda: captures.main(device),
        "bf16": lambda: bf16.main([*size, *device]),
        "attention": lambda: attention.main([*device, "--json", str(card.out / "attention.json")]),
        "fused": bench("fused", f"--batch {SMALL} --codec --reasoner --frames 24"),
        "baseline": bench("baseline", "--batch 1 --baseline --frames 12"),
        "profile": lambda: profile.report(card.model, [1, 256], None),
        "codec": lambda: profile.codec(card.model, [1, 256]),
        "large": bench("fused_large", f"--batch {LARGE} --codec --reasoner --frames 12"),
        "sampled": bench("fused_sampled", "--batch 1,256 --top-k 50 --frames 12"),
        "split": bench("split", "--placement split --batch 1,64,256,512 --frames 12"),
        "calls": bench("calls", "--no-graphs --batch 1,64,256 --frames 12"),
        "huge": bench("fused_1024", "--batch 1024 --codec --frames 6"),
        "pipeline": speech("pipeline", "--streams 1,16 --reply-s 4"),
        "questions": speech("questions", "--streams 4 --questions 2,5,10,30 --rounds 5"),
        "crowd": speech("crowd", "--streams 64,256 --arrive-s 8 --reply-s 8"),
    }


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    card = Card(options)
    print(line(card.machine), flush=True)
    print(f"reads {card.roofline.bytes_per_s / 1e9:.0f} GB/s, computes {card.roofline.flops_per_s / 1e12:.0f} TFLOP/s")
    known = parts(card)
    wanted = options.parts.split(",") if options.parts else list(known)
    if unknown := [name for name in wanted if name not in known]:
        print(f"No part is called {', '.join(unknown)}; there are {', '.join(known)}.")
        return 2
    failed = []
    for name in wanted:
        begun_s = time.monotonic() - began
        if begun_s > options.budget_s:
            print(f"== {name}: not begun, the budget of {options.budget_s:g} s is spent")
            failed.append(name)
            continue
        print(f"== {name}, {begun_s:.0f} s after the start", flush=True)
        try:
            if known[name]() != 0:
                failed.append(name)
        except Exception:  # told, and the next part may still say something
            traceback.print_exc()
            failed.append(name)
        free()
    print(f"{time.monotonic() - began:.0f} s; " + (f"failed: {', '.join(failed)}" if failed else "all parts ran"))
    return 1 if failed else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest.h200", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("loadtest/results/h200"))
    parser.add_argument("--parts", help="with commas; all by default")
    parser.add_argument("--budget-s", type=float, default=3600.0)
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="full")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
