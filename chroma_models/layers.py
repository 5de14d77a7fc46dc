"""Transformer layers: fused weights, and one token batch's way through them.

In float32 the weights are stored ready to use. A norm's weight and the square root of its width are folded into the
matrix that follows, so that normalising is a division by a vector's length; 1 / sqrt(head_dim) is folded into the
queries; and the two halves of a head are interleaved, so that rope is one complex product. In bfloat16, where folding
would round the weights a second time, they stay as published. Either way matrices lie in memory as [in, out]: few rows
times that is up to twice as fast on a CPU, and the same on a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.architecture import Rope, StackShape
from chroma_models.kernels import triton_kernels

FOLDED = {torch.float32}  # dtypes in which folding a factor into a matrix loses nothing that matters
TensorSource = Callable[[str], Tensor]  # a tensor by its name below the stack's prefix, on its device and dtype


def rope_table(rope: Rope, head_dim: int, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [positions, head_dim], halves repeated (rotate-half layout).

    Source: the Llama 3 stretch is the one of transformers' rope utilities, which the public reference runs.
    """
    inverse = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
    if rope.factor != 1.0:
        wavelength = 2 * torch.pi / inverse
        low, high = rope.low_freq_factor, rope.high_freq_factor
        smooth = (rope.original_positions / wavelength - low) / (high - low)
        blended = (1 - smooth) * inverse / rope.factor + smooth * inverse
        stretched = torch.where(wavelength > rope.original_positions / low, inverse / rope.factor, blended)
        inverse = torch.where(wavelength < rope.original_positions / high, inverse, stretched)
    angles = torch.outer(torch.arange(positions).float(), inverse)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(device), angles.sin().to(device)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Apply rotary positions to [..., head_dim]. signed_sin carries the minus sign of the first half."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat([x[..., half:], x[..., :half]], -1), signed_sin)


def in_by_out(weight: Tensor) -> Tensor:
    """A matrix [out, in] as a contiguous [in, out]."""
    return weight.t().contiguous()


@dataclass(frozen=True)
class Layer:
    """Matrices are [in, out]."""

    norm1: Tensor
    qkv: Tensor  # [hidden, q + k + v]
    qkv_bias: Tensor | None
    out: Tensor
    norm2: Tensor
    gate_up: Tensor  # [hidden, 2 * intermediate]
    down: Tensor

    @classmethod
    def load(cls, shape: StackShape, get: TensorSource, prefix: str, *, folded: bool) -> "Layer":
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        norm1, norm2 = get(f"{prefix}.input_layernorm.weight"), get(f"{prefix}.post_attention_layernorm.weight")
        parts = [get(f"{attention}.{c}_proj.weight") for c in "qkv"]
        biases = [get(f"{attention}.{c}_proj.bias") for c in "qkv"] if shape.qkv_bias else None
        gate_up = torch.cat([get(f"{mlp}.{c}_proj.weight") for c in ("gate", "up")])
        if folded:
            parts = _ready(shape, parts)
            biases = None if biases is None else _ready(shape, biases)
        qkv = torch.cat(parts)
        if folded:
            qkv, norm1 = fold(qkv, norm1)
            gate_up, norm2 = fold(gate_up, norm2)
        return cls(
            norm1=norm1,
            qkv=in_by_out(qkv),
            qkv_bias=None if biases is None else torch.cat(biases),
            out=in_by_out(get(f"{attention}.o_proj.weight")),
            norm2=norm2,
            gate_up=in_by_out(gate_up),
            down=in_by_out(get(f"{mlp}.down_proj.weight")),
        )


def fold(weight: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] that takes in vectors of length 1, and the norm weight that makes such vectors."""
    root = math.sqrt(norm.shape[0])
    return weight * (norm * root), torch.full_like(norm, 1 / root)


def _ready(shape: StackShape, parts: list[Tensor]) -> list[Tensor]:
    """Queries scaled; queries and keys (first dimension heads * head_dim) with the halves of each head interleaved."""
    half = shape.head_dim // 2

    def interleaved(x: Tensor) -> Tensor:
        return x.view(-1, 2, half, *x.shape[1:]).transpose(1, 2).reshape(x.shape)

    q, k, v = parts
    return [interleaved(q) * shape.head_dim**-0.5, interleaved(k), v]


class Stack:
    """Layers, final norm and rope of one transformer; the KV cache is the caller's.

    get("layers.0.input_layernorm.weight"), get("norm.weight") and so on give the weights.
    """

    def __init__(self, shape: StackShape, get: TensorSource, positions: int) -> None:
        self.shape = shape
        self.norm = get("norm.weight")
        self.device, self.dtype = self.norm.device, self.norm.dtype
        self.folded = self.dtype in FOLDED
        self.kernels = None if self.folded else triton_kernels("token_kernels", self.device)
        self.layers = [Layer.load(shape, get, f"layers.{i}", folded=self.folded) for i in range(shape.layers)]
        self.scale = 1.0 if self.folded else shape.head_dim**-0.5  # of attention scores, beyond what is folded in
        cos, sin = rope_table(shape.rope, shape.head_dim, positions, self.device)
        half = shape.head_dim // 2
        self._turn = torch.complex(cos[:, :half].contiguous(), sin[:, :half].contiguous())
        self.cos = cos.to(self.dtype)
        self.signed_sin = torch.cat([-sin[:, :half], sin[:, half:]], -1).to(self.dtype)
        self.rotating = shape.heads + shape.kv_heads  # heads of qkv that rope turns
        self.kv_width = shape.kv_heads * shape.head_dim
        self.q_width = shape.heads * shape.head_dim

    def rope(self, positions: Tensor) -> Tensor:
        """What turn() needs for int64 positions [n]."""
        if self.folded:
            return self._turn.index_select(0, positions)[:, None]
        return torch.stack([self.cos[positions], self.signed_sin[positions]])[:, :, None]

    def turn(self, qkv: Tensor, rope: Tensor) -> None:
        """Rotate queries and keys of [n, q + k + v] in place."""
        shape = self.shape
        heads = qkv[:, : self.rotating * shape.head_dim].view(len(qkv), self.rotating, shape.head_dim)
        if self.folded:
            torch.view_as_complex(heads.view(len(qkv), self.rotating, -1, 2)).mul_(rope)
        else:
            heads.copy_(rotate(heads, rope[0], rope[1]))

    def qkv(self, layer: Layer, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [n, heads, head_dim], and keys and values [n, 2, kv_heads, head_dim], of [n, hidden]."""
        shape = self.shape
        h = F.linear(rms_norm(x, layer.norm1, shape.norm_eps), layer.qkv.t(), layer.qkv_bias)
        self.turn(h, rope)
        queries = h[:, : self.q_width].view(len(h), shape.heads, shape.head_dim)
        return queries, h[:, self.q_width :].view(len(h), 2, shape.kv_heads, shape.head_dim)

    def finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """Residual of the attention output [..., heads * head_dim], then the MLP."""
        x = x + attended @ layer.out
        gate, up = (rms_norm(x, layer.norm2, self.shape.norm_eps) @ layer.gate_up).chunk(2, -1)
        return x + (F.silu(gate) * up) @ layer.down


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of [rows, n, heads, dim] over a cache [rows, kv_heads, length, dim], without repeating keys.

    The query heads that share a key head are laid along the query axis, so the cache is read in place.
    mask  additive, q's dtype [rows or 1, 1, n, length], or None when every query sees every key
    returns [rows, n, heads * dim]
    """
    rows, n, heads, dim = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    q = q.view(rows, n, kv_heads, group, dim).permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, group * n, dim)
    if mask is not None and group > 1:
        mask = mask.repeat(1, 1, group, 1)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return attended.view(rows, kv_heads, group, n, dim).permute(0, 3, 1, 2, 4).reshape(rows, n, heads * dim)
