"""How fast the engines are, stage by stage: no Ray, no vLLM, no checkpoint on disk.

    python -m loadtest.engine_bench --size tiny --batch 1,8,64 --threads 2 --baseline

Needs torch 2.11 or newer, transformers, numpy and safetensors. Weights are random, of the published shapes, drawn in
memory. Times are medians over frames; a frame of a batch is one step of every stream in it. With --baseline the public
reference's way (eager transformers, one call per position, streams one after another) runs in turns with ours, on the
same weights and contexts, in the same process.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import StackShape
from chroma_models.checkpoint.sizes import Size
from chroma_models.eager_reference import EagerReference
from chroma_models.engine.cuda_graph import Graph, graph_pool
from chroma_models.engine.kv_cache import BUCKET, KvCache, Lane
from chroma_models.engine.static_depth import StaticDepth
from chroma_models.layers import Stack
from chroma_models.sampling import RowSampling
from chroma_models.tokens import Tokens
from chroma_models.types import CODEBOOKS, FRAMES_PER_S, Sampling
from loadtest.engine_streams import Baseline, Model, Streams
from loadtest.machine import line, machine
from loadtest.timing import Roofline, median_ms, memory_mb, synchronize, write_json

FRAME_MS = 1e3 / FRAMES_PER_S
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Result:
    """One batch size. Times are of one step of the whole batch; real time allows 80 ms."""

    batch: int
    placement: str
    frame_ms: float  # backbone and decoder, codes on the host
    host_ms: float  # of it, until everything is launched
    decoder_ms: float
    backbone_ms: float  # frame_ms less decoder_ms
    codec_ms: float | None  # one frame of every stream
    codec_group_ms: float | None  # per frame, four at a time
    reasoner_ms: float | None  # half a step
    rtf: float  # all of the above that ran
    streams_in_real_time: float  # batch / rtf: what this step time would carry if it did not grow
    launches: int  # a frame: ATen calls on a CPU (nested ones too), kernels on a GPU
    memory_mb: float
    roofline_ms: float
    roofline_share: float
    baseline_ms: float | None = None  # one frame of one stream
    speedup: float | None = None  # batch * baseline_ms / frame_ms


def stack_parameters(shape: StackShape) -> int:
    width = shape.heads * shape.head_dim
    attention = shape.hidden * (2 * width + 2 * shape.kv_heads * shape.head_dim)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def least_ms(model: Model, roofline: Roofline, batch: int, context: int) -> float:
    """A frame of a batch if weights were read once a pass, keys and values once, and nothing else took time."""
    a, itemsize = model.architecture, model.dtype.itemsize
    backbone = stack_parameters(a.backbone) + a.backbone.hidden * a.codebook_size
    depth = stack_parameters(a.decoder) * (CODEBOOKS - 1) + (CODEBOOKS - 1) * a.decoder.hidden * a.codebook_size
    kv = 2 * a.backbone.layers * a.backbone.kv_heads * a.backbone.head_dim * context * batch
    flops = 2 * batch * (2 * backbone + depth)  # two backbone positions a frame on average
    return 1e3 * roofline.least_s((backbone + depth + kv) * itemsize, flops)


def launches(work: Callable[[], object], device: torch.device) -> int:
    """What one call of work launches: every ATen operator, nested ones counted; on a GPU, every kernel."""
    from torch.profiler import DeviceType, ProfilerActivity, profile

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        work()
        work()
        synchronize(device)
    events = list(profiled.events() or ())
    if cuda:
        return sum(1 for event in events if event.device_type == DeviceType.CUDA) // 2
    return sum(1 for event in events if event.name.startswith("aten::")) // 2


def codec_ms(model: Model, batch: int, times: int, *, graphs: bool) -> tuple[float, float]:
    """Milliseconds per frame of the batch, one frame at a time and four at a time."""
    codec = model.codec(batch, graphs=graphs)
    slots = list(range(batch))
    size = model.architecture.codebook_size
    codes = torch.randint(0, size, (batch, codec.max_group, CODEBOOKS), device=model.device)
    for group in (codec.max_group, 1):
        codec.step(slots, codes[:, :group])
    one = median_ms(lambda: codec.step(slots, codes[:, :1]).cpu(), model.device, times)
    four = median_ms(lambda: codec.step(slots, codes).cpu(), model.device, max(2, times // 2))
    return one, four / codec.max_group


def reasoner_ms(model: Model, batch: int, times: int, args: argparse.Namespace) -> float:
    """Half a step of the Reasoner's text model with its head: a text step lasts two frames. With graphs the step is
    one, as it is in vLLM."""
    shape, device, context = model.architecture.reasoner, model.device, args.context
    positions = -(-(context + times + 8) // BUCKET) * BUCKET
    stack = Stack(shape, model.weights.source("thinker.model", device, model.dtype), positions)
    name = "thinker.model.embed_tokens.weight" if model.weights.tied_lm_head else "thinker.lm_head.weight"
    head = model.weights.tensor(name, device, model.dtype)
    cache = KvCache(stack, batch, positions)
    x = torch.randn((batch, 1, shape.hidden), device=device).to(model.dtype)
    slots, length = list(range(batch)), [context]

    def ordinary() -> Tensor:
        hidden = cache.step(stack, slots, [length[0]] * batch, x.clone(), [1] * batch)
        return torch.nn.functional.linear(hidden, head).argmax(-1)

    def work(step: Callable[[], Tensor]) -> None:
        with torch.inference_mode():
            step().cpu()
        length[0] += 1

    step = ordinary
    if args.graphs:
        lane = Lane(cache, stack, Tokens(stack, batch), batch, 1, own_slots=True)
        rows = np.arange(batch)

        def place() -> None:
            lane.place(np.full(batch, length[0]), rows * positions + length[0], rows)

        def whole() -> Tensor:
            lane.x.copy_(x[:, 0])
            hidden = lane.pass_through([(0, batch, 0)], positions)
            return torch.nn.functional.linear(hidden, head).argmax(-1)

        with torch.inference_mode():
            place()
            graph = Graph(whole, device, graph_pool(device))

        def step() -> Tensor:
            place()
            return graph()

    work(step)
    return median_ms(lambda: work(step), device, times) / 2


def bench(model: Model, roofline: Roofline, batch: int, args: argparse.Namespace) -> Result:
    device, context, frames = model.device, args.context, args.frames
    turns = args.repeat * frames + 12
    streams = Streams(model, args, batch, turns)
    streams.advance()
    streams.advance()
    counted = launches(streams.advance, device)
    baseline = None
    if args.baseline:
        reference = EagerReference(model.weights, device, model.dtype)
        baseline = Baseline(model, reference, context)
        for _ in range(4):
            baseline.advance()
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for _ in range(args.repeat):
        ours.append([])
        theirs.append([])
        for _ in range(frames // 2):  # in turns, so that a busy neighbour slows both
            ours[-1].append(_pair_ms(streams.advance))
            if baseline is not None:
                synchronize(device)
                theirs[-1].append(_pair_ms(baseline.advance))
                synchronize(device)
    hidden = torch.randn((batch, model.backbone.hidden), device=device).to(model.dtype)
    code0 = torch.zeros(batch, dtype=torch.int64, device=device)
    sampling = RowSampling.of([Sampling(seed=0)] * batch, [0] * batch, device)
    depth = StaticDepth(model.decoder, batch) if args.graphs else model.decoder
    depth.complete(hidden, code0, sampling)
    decoder = median_ms(lambda: depth.complete(hidden, code0, sampling), device, frames)
    frame = statistics.median(statistics.median(run) for run in ours)
    codec = codec_ms(model, batch, max(3, frames // 4), graphs=args.graphs) if args.codec else (None, None)
    reasoner = reasoner_ms(model, batch, max(3, frames // 4), args) if args.reasoner else None
    total = frame + (codec[0] or 0.0) + (reasoner or 0.0)
    least = least_ms(model, roofline, batch, context)
    reference_ms = statistics.median(statistics.median(run) for run in theirs) if baseline is not None else None
    return Result(
        batch=batch,
        placement=args.placement,
        frame_ms=frame,
        host_ms=1e3 * statistics.median(streams.launch_s[-frames:]),
        decoder_ms=decoder,
        backbone_ms=frame - decoder,
        codec_ms=codec[0],
        codec_group_ms=codec[1],
        reasoner_ms=reasoner,
        rtf=total / FRAME_MS,
        streams_in_real_time=batch * FRAME_MS / total,
        launches=counted,
        memory_mb=memory_mb(device),
        roofline_ms=least,
        roofline_share=least / frame,
        baseline_ms=reference_ms,
        speedup=None if reference_ms is None else batch * reference_ms / frame,
    )


def _pair_ms(advance: Callable[[], object]) -> float:
    """Wall time per frame of two frames on the host: text comes with every second one. Ours and the baseline's
    alternate."""
    started = time.perf_counter()
    advance()
    advance()
    return (time.perf_counter() - started) * 500


COLUMNS = {
    "batch": "{:d}",
    "frame_ms": "{:.2f}",
    "host_ms": "{:.2f}",
    "backbone_ms": "{:.2f}",
    "decoder_ms": "{:.2f}",
    "codec_ms": "{:.2f}",
    "codec_group_ms": "{:.2f}",
    "reasoner_ms": "{:.2f}",
    "rtf": "{:.4f}",
    "streams_in_real_time": "{:.0f}",
    "launches": "{:d}",
    "memory_mb": "{:.0f}",
    "roofline_share": "{:.1%}",
    "baseline_ms": "{:.2f}",
    "speedup": "{:.2f}x",
}


def table(results: Sequence[Result]) -> str:
    """One line per batch size; a column that nothing filled is left out."""
    rows = [asdict(result) for result in results]
    names = [name for name in COLUMNS if any(row[name] is not None for row in rows)]
    lines = [names, *([COLUMNS[n].format(row[n]) if row[n] is not None else "-" for n in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest.engine_bench", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="tiny")
    parser.add_argument("--batch", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bfloat16 on cuda, float32 on cpu")
    parser.add_argument("--placement", choices=["fused", "split"], default="fused")
    parser.add_argument("--frames", type=int, default=40, help="per repetition")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions; their median is reported")
    parser.add_argument("--context", type=int, default=150, help="positions before the first frame")
    parser.add_argument("--top-k", type=int, default=0, help="sample with this top-k at 0.7; 0 is greedy")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baseline", action="store_true", help="time the public reference's way too")
    parser.add_argument("--codec", action="store_true", help="time Mimi too")
    parser.add_argument("--reasoner", action="store_true", help="time half a step of the Reasoner too")
    parser.add_argument(
        "--graphs",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="passes of fixed shapes, captured on cuda; on a cpu they run as calls",
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    dtype = DTYPES[args.dtype or ("bfloat16" if device.type == "cuda" else "float32")]
    ran_on = machine() | {"threads": args.threads}
    print(f"{line(ran_on)}; {args.threads} threads")
    model = Model(cast("Size", args.size), args.seed, device, dtype)
    positions = args.context + 2 * (args.repeat * args.frames + 14)
    if positions > model.backbone.positions:
        print(f"{positions} positions are more than the Backbone's {model.backbone.positions}: ask for fewer frames.")
        return 2
    roofline = Roofline.measure(device, dtype)
    kind = "graphs" if args.graphs else "calls"
    print(
        f"{args.size}, {str(dtype).removeprefix('torch.')}, {args.placement}, {kind}, seed {args.seed}, "
        f"context {args.context}, median of {args.repeat} x {args.frames} frames"
    )
    reads, computes = roofline.bytes_per_s / 1e9, roofline.flops_per_s / 1e12
    print(f"this device reads {reads:.0f} GB/s and computes {computes:.2f} TFLOP/s")
    results = [bench(model, roofline, batch, args) for batch in args.batch]
    print(table(results))
    if args.json is not None:
        command = ["python", "-m", "loadtest.engine_bench", *(argv if argv is not None else sys.argv[1:])]
        facts = {"size": args.size, "dtype": str(dtype).removeprefix("torch."), "roofline": asdict(roofline)}
        facts |= {"batches": [asdict(result) for result in results]}
        write_json(args.json, command, ran_on, args.seed, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
