"""Mimi's convolutions as matrix products over windows of time, so that a stream is only its last few inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOWS = 1 << 21  # elements of spread-out windows per product: small enough to stay in a CPU's cache
WINDOWS_CUDA = 1 << 27  # half a gigabyte: there, every product more is a launch more


@dataclass(frozen=True)
class CausalConv:
    """A causal convolution of stride 1, or a causal transposed one. Time runs before channels.

    Position t reads inputs t - taps + 1 .. t and gives `stride` consecutive outputs: a transposed convolution is the
    same thing with stride > 1, since each of its outputs depends on kernel / stride inputs alone.
    """

    weight: Tensor  # [taps * inputs, stride * outputs], columns contiguous: few rows times that is fastest
    bias: Tensor | None  # [stride * outputs]
    inputs: int
    taps: int
    stride: int

    @classmethod
    def plain(cls, weight: Tensor, bias: Tensor | None) -> "CausalConv":
        """From nn.Conv1d's weight [outputs, inputs, kernel]."""
        outputs, inputs, kernel = weight.shape
        return cls(weight.transpose(1, 2).reshape(outputs, kernel * inputs).t(), bias, inputs, kernel, 1)

    @classmethod
    def transposed(cls, weight: Tensor, bias: Tensor | None, groups: int = 1) -> "CausalConv":
        """From nn.ConvTranspose1d's weight [inputs, outputs / groups, 2 * stride], with the right end trimmed.

        Groups are written out: the one grouped layer, from frame to transformer rate, is too small to matter.
        """
        inputs, part, kernel = weight.shape
        stride, size = kernel // 2, inputs // groups
        dense = weight.new_zeros(inputs, groups * part, kernel)
        for g in range(groups):
            rows = slice(g * size, (g + 1) * size)
            dense[rows, g * part : (g + 1) * part] = weight[rows]
        # The older input meets the second half of the kernel, the newer one the first.
        taps = dense.view(inputs, groups * part, 2, stride).flip(2)  # [inputs, outputs, 2, stride]
        matrix = taps.permute(3, 1, 2, 0).reshape(stride * dense.shape[1], 2 * inputs)
        return cls(matrix.t(), None if bias is None else bias.repeat(stride), inputs, 2, stride)

    @property
    def history(self) -> int:
        """Inputs a stream keeps from one call to the next."""
        return self.taps - 1

    def windows(self, rows: int, length: int) -> int:
        """Elements of scratch that apply wants for inputs [rows, length]; 0 where it works in place."""
        return self._at_once(rows, length) * length * self.taps * self.inputs if self.taps > 1 else 0

    def _at_once(self, rows: int, length: int) -> int:
        most = WINDOWS if self.weight.device.type == "cpu" else WINDOWS_CUDA
        return min(rows, max(1, most // (length * self.taps * self.inputs)))

    def apply(self, x: Tensor, scratch: Tensor, out: Tensor) -> Tensor:
        """Convolve inputs that begin with a stream's history.

        x        [rows, history + length, inputs], contiguous
        scratch  flat, windows(rows, length) elements
        out      contiguous, rows * length * stride * outputs elements
        returns  [rows, length * stride, outputs], a view of out
        """
        rows, length = x.shape[0], x.shape[1] - self.history
        width, y = self.taps * self.inputs, out.view(rows * length, -1)
        if self.taps == 1:
            self._product(x.view(rows * length, width), y)
            return y.view(rows, length * self.stride, -1)
        many = self._at_once(rows, length)
        for a in range(0, rows, many):
            part = x[a : a + many]
            spread = scratch[: len(part) * length * width].view(len(part), length, width)
            # Each window is a run of memory that overlaps the next; no product takes rows like that, hence the copy.
            spread.copy_(part.as_strided(spread.shape, (part.stride(0), self.inputs, 1), part.storage_offset()))
            self._product(spread.view(-1, width), y[a * length : (a + many) * length])
        return y.view(rows, length * self.stride, -1)

    def _product(self, x: Tensor, out: Tensor) -> None:
        if self.bias is None:
            torch.mm(x, self.weight, out=out)
        else:
            torch.addmm(self.bias, x, self.weight, out=out)
