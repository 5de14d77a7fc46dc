"""Attention over a stream's ring of keys and values as one Triton kernel, in float32. Imported only where Triton is."""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # cells at a time


@triton.jit
def _attend_ring(  # type: ignore[no-untyped-def]  # noqa: ANN202
    qkv,  # noqa: ANN001
    turn,  # noqa: ANN001
    ring,  # noqa: ANN001
    slots,  # noqa: ANN001
    firsts,  # noqa: ANN001
    out,  # noqa: ANN001
    scale,  # noqa: ANN001
    cells,  # noqa: ANN001
    context,  # noqa: ANN001
    heads,  # noqa: ANN001
    n: tl.constexpr,
    wide: tl.constexpr,
    dim: tl.constexpr,
    block: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    slot, first = tl.load(slots + row), tl.load(firsts + row)
    token, feature = tl.arange(0, wide), tl.arange(0, dim)
    there = token < n
    used = there[:, None]
    width = heads * dim
    own = qkv + ((row * n + token) * 3 * width + head * dim)[:, None]
    angle = turn + ((row * n + token) * dim)[:, None] + (feature // 2 * 2)[None, :]  # cos and sin side by side
    cos = tl.load(angle, mask=used, other=0.0)
    sin = tl.load(angle + 1, mask=used, other=0.0)
    sin = tl.where((feature % 2 == 0)[None, :], -sin, sin)
    q = tl.load(own + feature[None, :], mask=used, other=0.0) * cos
    q += tl.load(own + (feature ^ 1)[None, :], mask=used, other=0.0) * sin
    k = tl.load(own + width + feature[None, :], mask=used, other=0.0) * cos
    k += tl.load(own + width + (feature ^ 1)[None, :], mask=used, other=0.0) * sin
    v = tl.load(own + 2 * width + feature[None, :], mask=used, other=0.0)
    base = ring + slot * cells * 2 * width + head * dim
    place = base + ((first + token) % cells * 2 * width)[:, None] + feature[None, :]
    tl.store(place, k, mask=used)
    tl.store(place + width, v, mask=used)
    tl.debug_barrier()  # what this program wrote, it reads below
    position = first + token
    last = first + n - 1
    best = tl.full([wide], -1e30, tl.float32)
    total = tl.zeros([wide], tl.float32)
    acc = tl.zeros([wide, dim], tl.float32)
    for begin in range(0, tl.minimum(cells, last + 1), block):
        cell = begin + tl.arange(0, block)
        held = last - ((last - cell) % cells + cells) % cells  # the position that the cell holds
        inside = (cell < cells) & (held >= 0)
        at = base + (cell * 2 * width)[:, None] + feature[None, :]
        keys = tl.load(at, mask=inside[:, None], other=0.0)
        values = tl.load(at + width, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        behind = position[:, None] - held[None, :]
        scores = tl.where(inside[None, :] & (behind >= 0) & (behind < context), scores, -1e30)
        peak = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - peak[:, None])
        shrink = tl.exp(best - peak)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights, values, input_precision="ieee")
        best = peak
    where = out + ((row * n + token) * width + head * dim)[:, None] + feature[None, :]
    tl.store(where, acc / total[:, None], mask=used)


def attend_ring(
    qkv: Tensor, turn: Tensor, ring: Tensor, slots: Tensor, first: Tensor, out: Tensor, context: int
) -> None:
    """Rotate, keep the new keys and values, attend: each position of a row sees the `context` last ones up to itself.

    qkv    float32 [rows * n, 3 * heads * dim], contiguous: queries, keys, values; rope's pairs are neighbours
    turn   complex64 [rows * n, 1, dim / 2]: the rotation of each pair
    ring   float32 [slots, cells, 2, heads, dim], contiguous: position p of a slot is in cell p % cells
    slots, first  int64 [rows]: each row's slot, and its first new position
    out    float32 [rows * n, heads * dim], contiguous
    """
    cells, _, heads, dim = ring.shape[1:]
    rows = len(slots)
    n = len(qkv) // rows
    _attend_ring[(rows, heads)](
        qkv,
        turn.view(qkv.dtype),
        ring,
        slots,
        first,
        out,
        dim**-0.5,
        cells,
        context,
        heads,
        n,
        max(16, triton.next_power_of_2(n)),
        dim,
        BLOCK,
    )
