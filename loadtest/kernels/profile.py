"""Where a step's time goes: the kernels that take most of it, and the share of the time in which none runs.

python -m loadtest.kernels.profile --size tiny --batch 1,8
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch.profiler import DeviceType, ProfilerActivity, profile

from chroma_models.checkpoint.sizes import Size
from loadtest.engine_bench import DTYPES, Model, Streams
from loadtest.timing import synchronize

FRAMES = 10


def main(argv: Sequence[str] | None = None) -> int:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="loadtest.kernels.profile", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="tiny")
    parser.add_argument("--batch", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8])
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16" if cuda else "float32")
    parser.add_argument("--trace", type=Path, help="write a Chrome trace per batch size into this folder")
    args = parser.parse_args(argv)
    args.attention = "sdpa"
    args.context, args.top_k, args.placement, args.graphs = 150, 0, "fused", cuda
    device = torch.device("cuda" if cuda else "cpu")
    model = Model(cast("Size", args.size), 0, device, DTYPES[args.dtype])
    for batch in args.batch:
        streams = Streams(model, args, batch, 3 * FRAMES)
        for _ in range(4):
            streams.advance()
        synchronize(device)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
            started = time.perf_counter()
            for _ in range(FRAMES):
                streams.advance()
            synchronize(device)
            wall_us = (time.perf_counter() - started) * 1e6
        print(f"batch {batch}: {wall_us / FRAMES / 1e3:.3f} ms a frame while profiled")
        if cuda:
            busy_us = sum(e.time_range.elapsed_us() for e in profiled.events() if e.device_type == DeviceType.CUDA)
            print(f"kernels run {busy_us / wall_us:.0%} of the time")
        key = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        print(profiled.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60))
        if args.trace is not None:
            profiled.export_chrome_trace(str(args.trace / f"trace_{args.size}_{batch}.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
