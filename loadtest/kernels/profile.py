"""Where a step's time goes: the kernels that take most of it, and the share of the time in which none runs.

python -m loadtest.kernels.profile --size tiny --batch 1,8
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from chroma_models.checkpoint.sizes import Size
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.types import CODEBOOKS
from loadtest import engine_bench
from loadtest.engine_bench import DTYPES
from loadtest.engine_streams import Model, Streams
from loadtest.timing import synchronize

FRAMES = 10
SHOWN = 24  # kernels, those that take most


def main(argv: Sequence[str] | None = None) -> int:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="loadtest.kernels.profile", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="tiny")
    parser.add_argument("--batch", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8])
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16" if cuda else "float32")
    parser.add_argument("--trace", type=Path, help="write a Chrome trace per batch size into this folder")
    args = parser.parse_args(argv)
    device = torch.device("cuda" if cuda else "cpu")
    report(Model(cast("Size", args.size), 0, device, DTYPES[args.dtype]), args.batch, args.trace)
    return 0


def report(model: Model, batches: Sequence[int], trace: Path | None) -> int:
    """Prints the table of each batch size; writes the traces where a folder is given."""
    args = engine_bench.parse(["--graphs" if model.device.type == "cuda" else "--no-graphs"])
    for batch in batches:
        profiled = _profiled(f"batch {batch}", Streams(model, args, batch, 3 * FRAMES).advance, model.device)
        if trace is not None:
            profiled.export_chrome_trace(str(trace / f"trace_{model.weights.size}_{batch}.json"))
    return 0


def codec(model: Model, batches: Sequence[int]) -> int:
    """The same for Mimi, a frame at a time."""
    for batch in batches:
        mimi = model.codec(batch, graphs=model.device.type == "cuda")
        codes = torch.zeros((batch, 1, CODEBOOKS), dtype=torch.int64, device=model.device)
        slots = list(range(batch))
        _profiled(f"Mimi, batch {batch}", partial(_decode, mimi, slots, codes), model.device)
    return 0


def _decode(mimi: StreamDecoder, slots: list[int], codes: Tensor) -> None:
    mimi.step(slots, codes).cpu()


def _profiled(what: str, work: Callable[[], object], device: torch.device) -> Any:
    cuda = device.type == "cuda"
    for _ in range(4):
        work()
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        started = time.perf_counter()
        for _ in range(FRAMES):
            work()
        synchronize(device)
        wall_us = (time.perf_counter() - started) * 1e6
    print(f"{what}: {wall_us / FRAMES / 1e3:.3f} ms a frame while profiled")
    events = [event for event in profiled.key_averages() if event.self_device_time_total or not cuda]
    taken = [(e.self_device_time_total if cuda else e.self_cpu_time_total, e.count, e.key) for e in events]
    busy, many = sum(us for us, _, _ in taken) / wall_us, sum(count for _, count, _ in taken) / FRAMES
    print(f"at work {busy:.0%} of the time, {many:.0f} a frame")
    for us, count, name in sorted(taken, reverse=True)[:SHOWN]:
        print(f"  {us / FRAMES:9.1f} us a frame  {count / FRAMES:6.1f} times  {us / count:8.2f} us each  {name[:90]}")
    return profiled


if __name__ == "__main__":
    sys.exit(main())
