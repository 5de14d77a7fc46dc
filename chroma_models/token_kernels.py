"""What a layer does between its matrix products, as Triton kernels. Imported only where Triton and CUDA are.

A step at batch 1 is short of launches, not of arithmetic: these three take the place of about fourteen. They compute in
float32 and round once.
"""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # keys at a time
WIDE = 1024  # elements of an MLP row at a time


@triton.jit
def _rms_norm(x, weight, out, eps, x_stride, width: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    row, at = tl.program_id(0), tl.arange(0, block)
    inside = at < width
    value = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    weights = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (value * weights).to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """x [n, width], rows contiguous, into out [n, width], contiguous."""
    width = x.shape[1]
    block = triton.next_power_of_2(width)
    _rms_norm[(len(x),)](x, weight, out, eps, x.stride(0), width, block, num_warps=4 if block <= 2048 else 8)
    return out


@triton.jit
def _silu_mul(gate_up, out, width, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    gate = tl.load(gate_up + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    mixed = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * width + at, mixed.to(out.dtype.element_ty), mask=inside)


def silu_mul(gate_up: Tensor, out: Tensor) -> None:
    """silu(gate) * up of gate_up [n, 2 * width] into out [n, width], both contiguous."""
    rows, width = out.shape
    _silu_mul[(rows, triton.cdiv(width, WIDE))](gate_up, out, width, WIDE)


@triton.jit
def _turned(x, partner, cos, signed_sin):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return (x.to(tl.float32) * cos + partner.to(tl.float32) * signed_sin).to(x.dtype)


@triton.jit
def _attend(  # type: ignore[no-untyped-def]  # noqa: ANN202
    queries,  # noqa: ANN001
    pairs,  # noqa: ANN001
    sources,  # noqa: ANN001
    cos,  # noqa: ANN001
    signed_sin,  # noqa: ANN001
    angles,  # noqa: ANN001
    writes,  # noqa: ANN001
    slots,  # noqa: ANN001
    starts,  # noqa: ANN001
    cells,  # noqa: ANN001
    out,  # noqa: ANN001
    scale,  # noqa: ANN001
    positions,  # noqa: ANN001
    kv_heads,  # noqa: ANN001
    query_stride,  # noqa: ANN001
    pair_stride,  # noqa: ANN001
    out_stride,  # noqa: ANN001
    row_step,  # noqa: ANN001
    token_step,  # noqa: ANN001
    group: tl.constexpr,
    n: tl.constexpr,
    room: tl.constexpr,  # n, rounded up to a power of two
    wide: tl.constexpr,  # n * group, rounded up to what a matrix unit takes
    dim: tl.constexpr,
    block: tl.constexpr,
    found: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    slot, start = tl.load(slots + row), tl.load(starts + row)
    feature = tl.arange(0, dim)
    partner = (feature + dim // 2) % dim
    lane = tl.arange(0, wide)
    used = lane < n * group
    token = row * row_step + (lane // group) * token_step
    new = tl.arange(0, room)
    there = new < n
    fresh = row * row_step + new * token_step
    if found:
        token_at = tl.load(sources + token, mask=used, other=0)
        fresh_at = tl.load(sources + fresh, mask=there, other=0)
    else:
        token_at = token.to(tl.int64)
        fresh_at = fresh.to(tl.int64)
    own = queries + (token_at * query_stride + (head * group + lane % group) * dim)[:, None]
    q = tl.load(own + feature[None, :], mask=used[:, None], other=0.0)
    pair = pairs + (fresh_at * pair_stride + head * dim)[:, None]
    k = tl.load(pair + feature[None, :], mask=there[:, None], other=0.0)
    v = tl.load(pair + kv_heads * dim + feature[None, :], mask=there[:, None], other=0.0)
    if not found:
        q_other = tl.load(own + partner[None, :], mask=used[:, None], other=0.0)
        k_other = tl.load(pair + partner[None, :], mask=there[:, None], other=0.0)
        q_angle = tl.load(angles + token, mask=used, other=0)[:, None] * dim + feature[None, :]
        k_angle = tl.load(angles + fresh, mask=there, other=0)[:, None] * dim + feature[None, :]
        q = _turned(q, q_other, tl.load(cos + q_angle), tl.load(signed_sin + q_angle))
        k = _turned(k, k_other, tl.load(cos + k_angle), tl.load(signed_sin + k_angle))
    stride = 2 * kv_heads * dim
    cell = tl.load(writes + fresh, mask=there, other=0)
    kept = cells + (cell * stride + head * dim)[:, None] + feature[None, :]
    tl.store(kept, k, mask=there[:, None])
    tl.store(kept + kv_heads * dim, v, mask=there[:, None])
    tl.debug_barrier()  # what this program wrote, it reads below
    last = start + lane // group  # the newest key that a query sees
    best = tl.full([wide], -1e30, tl.float32)
    total = tl.zeros([wide], tl.float32)
    acc = tl.zeros([wide, dim], tl.float32)
    base = cells + slot * positions * stride + head * dim
    for begin in range(0, start + n, block):
        key = begin + tl.arange(0, block)
        held = key < start + n
        at = base + key[:, None] * stride + feature[None, :]
        keys = tl.load(at, mask=held[:, None], other=0.0)
        values = tl.load(at + kv_heads * dim, mask=held[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(keys)) * scale
        scores = tl.where(key[None, :] <= last[:, None], scores, -1e30)
        peak = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - peak[:, None])
        shrink = tl.exp(best - peak)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights.to(values.dtype), values)
        best = peak
    place = (token * out_stride + (head * group + lane % group) * dim)[:, None] + feature[None, :]
    tl.store(out + place, (acc / total[:, None]).to(out.dtype.element_ty), mask=used[:, None])


def attend(
    queries: Tensor,
    pairs: Tensor,
    cells: Tensor,
    out: Tensor,
    *,
    n: int,
    scale: float,
    slots: Tensor,
    starts: Tensor,
    writes: Tensor,
    rope: tuple[Tensor, Tensor, Tensor] | None = None,
    sources: Tensor | None = None,
    row_step: int,
    token_step: int,
    block: int = BLOCK,
) -> None:
    """Rotate, keep the new keys and values, attend: all between a layer's first product and its second.

    Row r has n tokens; its i-th is token r * row_step + i * token_step. Each query sees its slot's cells up to its own.

    queries  [tokens, heads * dim], rows contiguous; dim a power of two, 16 or more
    pairs    [tokens, 2 * kv_heads * dim], rows contiguous: keys, then values
    cells    [slots, positions, 2, kv_heads, dim], contiguous: one layer of a cache
    out      [tokens, heads * dim], contiguous
    slots    int64 [rows]: where each row reads; starts, int64 [rows]: the position of its first token
    writes   int64 [tokens]: the cell (slot * positions + position) of each token's key and value
    rope     cos and signed sin [positions, dim], and int64 [tokens] that says which of their rows turns a token
    sources  instead of rope, int64 [tokens]: the row of queries and pairs that is the token's, turned already
    """
    positions, _, kv_heads, dim = cells.shape[1:]
    group = out.shape[1] // (kv_heads * dim)
    rows = len(starts)
    cos, signed_sin, angles = rope if rope is not None else (out, out, writes)
    _attend[(rows, kv_heads)](
        queries,
        pairs,
        sources if sources is not None else writes,
        cos,
        signed_sin,
        angles,
        writes,
        slots,
        starts,
        cells,
        out,
        scale,
        positions,
        kv_heads,
        queries.stride(0),
        pairs.stride(0),
        out.stride(0),
        row_step,
        token_step,
        group,
        n,
        triton.next_power_of_2(n),
        max(16, triton.next_power_of_2(n * group)),
        dim,
        block,
        sources is not None,
    )
