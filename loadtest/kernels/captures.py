"""Whether captured passes say what ordinary ones say: greedy and drawn codes in float32, samples of Mimi, on one GPU.

python -m loadtest.kernels.captures --device cuda
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch

from chroma_models.engine.cuda_graph import buckets
from chroma_models.types import CODEBOOKS
from loadtest import engine_bench
from loadtest.engine_streams import Model, Streams

FRAMES = 8
LEAST_SAME = 0.2  # in bfloat16, where kernels round differently; other computations would agree once in 2,048 codes
LEAST_SNR_DB = 60.0  # float32 products may add up in another order


def codes(model: Model, batch: int, argv: list[str]) -> np.ndarray:
    """int16 [FRAMES, batch, CODEBOOKS] of a batch of turns."""
    streams = Streams(model, engine_bench.parse(["--context", "40", *argv]), batch, FRAMES + 2)
    return np.stack([streams.advance() for _ in range(FRAMES)])


def spoken(model: Model, batch: int, *, graphs: bool) -> torch.Tensor:
    """float32 [batch, samples] of random codes, in groups of four and of one."""
    codec = model.codec(batch, graphs=graphs)
    drawn = torch.randint(0, model.architecture.codebook_size, (batch, 5, CODEBOOKS), generator=seeded())
    drawn = drawn.to(model.device)
    slots = list(range(batch))
    return torch.cat([codec.step(slots, part).cpu() for part in (drawn[:, :4], drawn[:, 4:])], 1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtest.kernels.captures", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    model = Model("tiny", 0, torch.device(args.device), torch.float32)
    right = True
    for batch in (1, 5, max(buckets(40))):
        for placement in ("fused", "split"):
            for drawing in ([], ["--top-k", "5"]):
                asked = ["--placement", placement, *drawing]
                captured, plain = (codes(model, batch, [*asked, how]) for how in ("--graphs", "--no-graphs"))
                same = float((captured == plain).mean())
                right &= same == 1.0
                kind = "drawn" if drawing else "greedy"
                print(f"batch {batch:2}, {placement}, {kind}: {same:.1%} of the codes are those of plain calls")
        mine, theirs = spoken(model, batch, graphs=True), spoken(model, batch, graphs=False)
        snr_db = float(10 * torch.log10(theirs.square().sum() / (mine - theirs).square().sum().clamp(min=1e-30)))
        right &= snr_db > LEAST_SNR_DB
        print(f"batch {batch:2}, Mimi: captured against plain {snr_db:.0f} dB")
    half = Model("mid", 0, torch.device(args.device), torch.bfloat16)
    for batch in (8, 40):  # a code follows from those before it, so that one rounding can change all later ones
        captured, plain = (codes(half, batch, [how])[0] for how in ("--graphs", "--no-graphs"))
        same = float((captured == plain).mean())
        right &= same > LEAST_SAME
        print(f"batch {batch:2}, bfloat16, mid: {same:.1%} of an early frame's codes are those of plain calls")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
