"""Buffers that a batch of tokens passes through a stack in: allocated once, every product written in place."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.layers import Layer, Stack, rms_norm

_ALIGN = 16  # elements a row of x is padded by; the first of them takes part in its length


class Tokens:
    """Room for `count` tokens of a stack, and the steps of a layer over it. first(n) is the same room, for fewer.

    x         [count, hidden]: where a token enters, and where it leaves
    qkv       [count, q + k + v]
    attended  [count, heads * head_dim]: filled by the caller between open() and finish()
    """

    def __init__(self, stack: Stack, count: int) -> None:
        shape = stack.shape

        def room(width: int) -> Tensor:
            return torch.zeros((count, width), dtype=stack.dtype, device=stack.device)

        padded = room(shape.hidden + _ALIGN)
        # sqrt(sum(x^2) + n eps): with one more element the epsilon of a norm is part of the vector's length.
        padded[:, shape.hidden] = math.sqrt(shape.hidden * shape.norm_eps)
        widths = (1, shape.hidden, stack.q_width + 2 * stack.kv_width, 2 * shape.intermediate, shape.intermediate)
        self._set(stack, padded, [*map(room, widths), room(stack.q_width)])

    def first(self, count: int) -> "Tokens":
        """A view of the first tokens."""
        tokens = object.__new__(Tokens)
        tokens._set(self._stack, self._padded[:count], [buffer[:count] for buffer in self._buffers])
        return tokens

    def _set(self, stack: Stack, padded: Tensor, buffers: list[Tensor]) -> None:
        shape = stack.shape
        self._stack, self._padded, self._buffers = stack, padded, buffers
        self.count = len(padded)
        self.x, self._measured = padded[:, : shape.hidden], padded[:, : shape.hidden + 1]
        self._length, self.normed, self.qkv, self._gate_up, self._mixed, self.attended = buffers
        self._gate, self._up = self._gate_up.chunk(2, -1)
        turning = self.qkv[:, : stack.rotating * shape.head_dim].view(self.count, stack.rotating, -1)
        self._turning = (
            torch.view_as_complex(turning.view(self.count, stack.rotating, -1, 2)) if stack.folded else turning
        )
        self.kv = self.qkv[:, stack.q_width :]

    def normalise(self, weight: Tensor) -> Tensor:
        """x, normalised, in a buffer of its own."""
        if self._stack.folded:
            torch.linalg.vector_norm(self._measured, 2, -1, True, out=self._length)
            return torch.div(self.x, self._length, out=self.normed)
        if self._stack.kernels is not None:
            self._stack.kernels.rms_norm(self.x, weight, self._stack.shape.norm_eps, self.normed)
            return self.normed
        return self.normed.copy_(rms_norm(self.x, weight, self._stack.shape.norm_eps))

    def open(self, layer: Layer, rope: Tensor | None) -> None:
        """Norm, then queries, keys and values, the first two rotated; without rope that is left to who attends."""
        self.normalise(layer.norm1)
        if layer.qkv_bias is None:
            torch.mm(self.normed, layer.qkv, out=self.qkv)
        else:
            torch.addmm(layer.qkv_bias, self.normed, layer.qkv, out=self.qkv)
        if rope is None:
            return
        if self._stack.folded:
            self._turning.mul_(rope)
        else:
            self._stack.turn(self.qkv, rope)

    def finish(self, layer: Layer) -> None:
        """Residual of the attention output, then the MLP."""
        self.x.addmm_(self.attended, layer.out)
        self.normalise(layer.norm2)
        torch.mm(self.normed, layer.gate_up, out=self._gate_up)
        if self._stack.kernels is not None:
            self._stack.kernels.silu_mul(self._gate_up, self._mixed)
        else:
            F.silu(self._gate, inplace=True)
            torch.mul(self._gate, self._up, out=self._mixed)
        self.x.addmm_(self._mixed, layer.down)
