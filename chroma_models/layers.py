"""Transformer layers over slots: fused weights, preallocated KV, rows of one step at their own positions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.architecture import Rope, StackShape

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


@dataclass(frozen=True)
class Layer:
    norm1: Tensor
    qkv: Tensor  # [q + k + v, hidden]
    qkv_bias: Tensor | None
    out: Tensor
    norm2: Tensor
    gate_up: Tensor  # [2 * intermediate, hidden]
    down: Tensor

    @classmethod
    def load(cls, get: TensorSource, prefix: str, *, qkv_bias: bool) -> "Layer":
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        return cls(
            norm1=get(f"{prefix}.input_layernorm.weight"),
            qkv=torch.cat([get(f"{attention}.{c}_proj.weight") for c in "qkv"]),
            qkv_bias=torch.cat([get(f"{attention}.{c}_proj.bias") for c in "qkv"]) if qkv_bias else None,
            out=get(f"{attention}.o_proj.weight"),
            norm2=get(f"{prefix}.post_attention_layernorm.weight"),
            gate_up=torch.cat([get(f"{mlp}.{c}_proj.weight") for c in ("gate", "up")]),
            down=get(f"{mlp}.down_proj.weight"),
        )


class Stack:
    """Layers, final norm and rope of one transformer; the KV cache is the caller's.

    get("layers.0.input_layernorm.weight"), get("norm.weight") and so on give the weights.
    """

    def __init__(self, shape: StackShape, get: TensorSource, positions: int) -> None:
        self.shape = shape
        self.layers = [Layer.load(get, f"layers.{i}", qkv_bias=shape.qkv_bias) for i in range(shape.layers)]
        self.norm = get("norm.weight")
        self.device, self.dtype = self.norm.device, self.norm.dtype
        cos, sin = rope_table(shape.rope, shape.head_dim, positions, self.device)
        half = shape.head_dim // 2
        self._cos = cos.to(self.dtype)
        self._signed_sin = torch.cat([-sin[:, :half], sin[:, half:]], -1).to(self.dtype)

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin for int64 positions [...]: two [..., 1, head_dim], to be applied to [..., heads, dim]."""
        return self._cos[positions].unsqueeze(-2), self._signed_sin[positions].unsqueeze(-2)

    def qkv(self, layer: Layer, x: Tensor, cos: Tensor, signed_sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values of [..., hidden]: each [..., its heads, head_dim]."""
        shape = self.shape
        h = F.linear(rms_norm(x, layer.norm1, shape.norm_eps), layer.qkv, layer.qkv_bias)
        h = h.view(*h.shape[:-1], -1, shape.head_dim)
        turned = rotate(h[..., : shape.heads + shape.kv_heads, :], cos, signed_sin)
        return turned[..., : shape.heads, :], turned[..., shape.heads :, :], h[..., shape.heads + shape.kv_heads :, :]

    def finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """Residual of the attention output [..., heads * head_dim], then the MLP."""
        x = x + F.linear(attended, layer.out)
        gate, up = F.linear(rms_norm(x, layer.norm2, self.shape.norm_eps), layer.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, layer.down)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
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
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attended.view(rows, kv_heads, group, n, dim).permute(0, 3, 1, 2, 4).reshape(rows, n, heads * dim)
