"""Attention of a step over slots of different lengths, as one Triton kernel. Imported only where Triton is.

A candidate beside scaled_dot_product_attention over masked length buckets (static_step): this one reads no key past a
row's own length, takes its rows in any order, and needs no mask. loadtest.kernels.attention compares them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # keys at a time


@triton.jit
def _kernel(  # type: ignore[no-untyped-def]  # noqa: ANN202
    queries,  # noqa: ANN001  [rows, kv_heads, n * group, dim]
    cells,  # noqa: ANN001  [slots, positions, 2, kv_heads, dim]
    slots,  # noqa: ANN001  int64 [rows]
    starts,  # noqa: ANN001  int64 [rows]: the position of each row's first query
    out,  # noqa: ANN001  like queries
    scale,  # noqa: ANN001
    positions,  # noqa: ANN001
    kv_heads,  # noqa: ANN001
    group: tl.constexpr,
    n: tl.constexpr,
    dim: tl.constexpr,
    wide: tl.constexpr,  # n * group, rounded up to what a matrix unit takes
    block: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    slot, start = tl.load(slots + row), tl.load(starts + row)
    lane, feature = tl.arange(0, wide), tl.arange(0, dim)
    own = (row * kv_heads + head) * n * group * dim
    used = lane[:, None] < n * group
    place = lane[:, None] * dim + feature[None, :]
    q = tl.load(queries + own + place, mask=used, other=0.0)
    last = start + lane // group  # the newest key that a query sees
    best = tl.full([wide], -1e30, tl.float32)
    total = tl.zeros([wide], tl.float32)
    acc = tl.zeros([wide, dim], tl.float32)
    base = cells + (slot * positions * 2 * kv_heads + head) * dim
    stride = 2 * kv_heads * dim
    for begin in range(0, start + n, block):
        key = begin + tl.arange(0, block)
        there = key < start + n
        k = tl.load(base + key[:, None] * stride + feature[None, :], mask=there[:, None], other=0.0)
        v = tl.load(base + kv_heads * dim + key[:, None] * stride + feature[None, :], mask=there[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k)) * scale
        scores = tl.where(key[None, :] <= last[:, None], scores, -1e30)
        peak = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - peak[:, None])
        shrink = tl.exp(best - peak)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
        best = peak
    tl.store(out + own + place, (acc / total[:, None]).to(q.dtype), mask=used)


def decode_attention(queries: Tensor, cells: Tensor, slots: Tensor, starts: Tensor, n: int, scale: float) -> Tensor:
    """Every query of a row sees its slot's positions up to its own.

    queries  [rows, kv_heads, n * group, dim], contiguous; dim a power of two, 16 or more
    cells    [slots, positions, 2, kv_heads, dim], contiguous: one layer of a KvCache, the new positions written
    slots, starts  int64 [rows]: each row's slot, and the position of its first query
    """
    rows, kv_heads, many, dim = queries.shape
    out = torch.empty_like(queries)
    wide = max(16, triton.next_power_of_2(many))
    grid = (rows, kv_heads)
    _kernel[grid](queries, cells, slots, starts, out, scale, cells.shape[1], kv_heads, many // n, n, dim, wide, BLOCK)
    return out
