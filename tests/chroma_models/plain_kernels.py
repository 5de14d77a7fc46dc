"""What the Triton kernels compute, in plain torch, token by token: their oracle, and their stand-in without a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.layers import rotate


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    return out.copy_(F.rms_norm(x, weight.shape, weight, eps))


def silu_mul(gate_up: Tensor, out: Tensor) -> None:
    gate, up = gate_up.chunk(2, -1)
    out.copy_(F.silu(gate) * up)


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
    block: int = 64,
) -> None:
    kv_heads, dim = cells.shape[3:]
    tokens, heads = len(starts) * n, out.shape[1] // dim
    at = torch.arange(tokens) if sources is None else sources[:tokens]
    q, kv = queries[at].view(tokens, heads, dim), pairs[at].view(tokens, 2, kv_heads, dim).clone()
    if rope is not None:
        cos, signed_sin = (part[rope[2][:tokens]][:, None] for part in rope[:2])
        q, kv[:, 0] = rotate(q, cos, signed_sin), rotate(kv[:, 0], cos, signed_sin)
    cells.view(-1, 2, kv_heads, dim)[writes[:tokens]] = kv
    for row in range(len(starts)):
        for i in range(n):
            token = row * row_step + i * token_step
            seen = cells[slots[row], : int(starts[row]) + i + 1].repeat_interleave(heads // kv_heads, 2)
            weights = torch.softmax(torch.einsum("hd,khd->hk", q[token], seen[:, 0]) * scale, -1)
            out[token] = torch.einsum("hk,khd->hd", weights, seen[:, 1]).flatten()


def attend_ring(
    qkv: Tensor, turn: Tensor, ring: Tensor, slots: Tensor, first: Tensor, out: Tensor, context: int
) -> None:
    _, cells, _, heads, dim = ring.shape
    rows = len(slots)
    n = len(qkv) // rows
    q, k, v = qkv.view(rows * n, 3, heads, dim).unbind(1)
    q, k = (_turned(x, turn) for x in (q, k))
    out = out.view(rows * n, heads, dim)
    for row in range(rows):
        slot, start = int(slots[row]), int(first[row])
        mine = range(row * n, row * n + n)
        for token, position in zip(mine, range(start, start + n), strict=True):
            ring[slot, position % cells, 0], ring[slot, position % cells, 1] = k[token], v[token]
        for token, position in zip(mine, range(start, start + n), strict=True):
            seen = ring[slot, [p % cells for p in range(max(0, position - context + 1), position + 1)]]
            weights = torch.softmax(torch.einsum("hd,khd->hk", q[token], seen[:, 0]) * dim**-0.5, -1)
            out[token] = torch.einsum("hk,khd->hd", weights, seen[:, 1])


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(-2)
