"""How far bfloat16 is from float32 on the same weights: states, logits and greedy codes of the same frames.

python -m loadtest.kernels.bf16 --size mid --device cpu
"""

import argparse
import sys
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from chroma_models.checkpoint.sizes import Size
from chroma_models.engine.kv_cache import KvCache
from loadtest.engine_streams import Model

LEAST_COSINE = 0.99  # between the two states of a position; below it bfloat16 is broken, not rounded


def states(model: Model, positions: int) -> Tensor:
    """The backbone's states of one context: [positions, hidden], float32 on the CPU."""
    cache = KvCache(model.backbone.stack, 1, positions)
    return cache.prefill(model.backbone.stack, 0, 0, model.prompt(0, positions)).float().cpu()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtest.kernels.bf16", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=["tiny", "mid", "full"], default="mid")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--positions", type=int, default=256)
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for dtype in (torch.float32, torch.bfloat16):
        model = Model(cast("Size", args.size), 0, device, dtype)
        hidden = states(model, args.positions)
        given = hidden if not found else found[0][0]  # the decoder is compared on equal states
        codes = torch.arange(args.positions)[:, None].expand(-1, 8) % model.architecture.codebook_size
        depth = model.decoder.logits(given.to(device, dtype), codes.to(device)).float().cpu()
        first = model.backbone.logits(given.to(device, dtype)).float().cpu()
        found.append((hidden, first, depth))
        del model
    (h32, f32, d32), (h16, f16, d16) = found
    cosine = torch.cosine_similarity(h32, h16).min().item()
    print(f"{args.size} on {device}: {args.positions} positions, bfloat16 against float32")
    print(f"  backbone states       least cosine {cosine:.5f}, largest error {(h32 - h16).abs().max():.3f}")
    for name, a, b in (("code 0", f32, f16), ("codes 1 to 7", d32, d16)):
        same = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
        error = (a - b).abs().max().item()
        print(f"  {name:20}  same argmax {same:.1%}, largest logit error {error:.3f} of deviation {a.std():.2f}")
    return 0 if cosine >= LEAST_COSINE else 1


if __name__ == "__main__":
    sys.exit(main())
