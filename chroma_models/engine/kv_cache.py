"""Preallocated keys and values of every slot, and a transformer step over some of them."""

import torch
from torch import Tensor

from chroma_models.layers import Stack, grouped_attention, rms_norm


class KvCache:
    """keys and values [layers, slots, kv_heads, positions, head_dim], written and attended to in place."""

    def __init__(self, stack: Stack, slots: int, positions: int) -> None:
        shape = stack.shape
        size = (shape.layers, slots, shape.kv_heads, positions, shape.head_dim)
        self.keys = torch.zeros(size, dtype=stack.dtype, device=stack.device)
        self.values = torch.zeros_like(self.keys)
        self.slots, self.positions = slots, positions
        self._steps = torch.arange(positions, device=stack.device)

    @torch.inference_mode()
    def prefill(self, stack: Stack, slot: int, start: int, x: Tensor) -> Tensor:
        """Run one turn's positions start.. through the stack.

        x [positions, hidden]; returns the same shape after the final norm. Attends to everything before it.
        """
        n = x.shape[0]
        end = start + n
        cos, sin = stack.rope(self._steps[start:end])
        ahead = self._steps[:end] > self._steps[start:end, None]
        mask = torch.zeros((n, end), dtype=x.dtype, device=x.device).masked_fill_(ahead, float("-inf"))[None, None]
        for i, layer in enumerate(stack.layers):
            q, k, v = stack.qkv(layer, x, cos, sin)
            self.keys[i, slot, :, start:end] = k.transpose(0, 1)
            self.values[i, slot, :, start:end] = v.transpose(0, 1)
            keys, values = self.keys[i, slot : slot + 1, :, :end], self.values[i, slot : slot + 1, :, :end]
            x = stack.finish(layer, x, grouped_attention(q[None], keys, values, mask)[0])
        return rms_norm(x, stack.norm, stack.shape.norm_eps)

    def prefix_bytes(self, positions: int) -> int:
        """Size of what read_prefix gives."""
        return 2 * self.keys[:, 0, :, 0].nbytes * positions

    @torch.inference_mode()
    def read_prefix(self, slot: int, positions: int) -> Tensor:
        """A copy of a slot's first positions: [2, layers, kv_heads, positions, head_dim], keys then values."""
        return torch.stack([self.keys[:, slot, :, :positions], self.values[:, slot, :, :positions]])

    @torch.inference_mode()
    def write_prefix(self, slot: int, prefix: Tensor) -> None:
        """Begin a slot with what read_prefix gave, instead of prefilling the same positions again."""
        positions = prefix.shape[3]
        self.keys[:, slot, :, :positions], self.values[:, slot, :, :positions] = prefix[0], prefix[1]

    @torch.inference_mode()
    def step(self, stack: Stack, slots: list[int], lengths: list[int], x: Tensor, counts: list[int]) -> Tensor:
        """Advance several turns by 1..n positions each, in one pass.

        slots    distinct cache rows, ascending
        lengths  positions each slot already holds
        x        [rows, n, hidden]; row r uses its first counts[r] positions, the rest is padding
        returns  [rows, hidden]: the last used position of each row after the final norm
        Padding is computed and written past the row's end, where the next step overwrites it before reading; a caller
        keeps n - 1 spare positions at the end of the cache.
        """
        rows, n = x.shape[:2]
        device = x.device
        start = torch.tensor(lengths, device=device)
        positions = start[:, None] + self._steps[:n]
        cos, sin = stack.rope(positions)
        longest = max(lengths) + n
        uneven = n > 1 or min(lengths) != max(lengths)
        mask = None
        if uneven:
            ahead = self._steps[:longest] > positions[:, :, None]
            mask = torch.zeros(ahead.shape, dtype=x.dtype, device=device).masked_fill_(ahead, float("-inf"))[:, None]
        runs = contiguous_runs(slots)
        row_index = torch.tensor(slots, device=device)[:, None]
        for i, layer in enumerate(stack.layers):
            q, k, v = stack.qkv(layer, x, cos, sin)
            self.keys[i].transpose(1, 2)[row_index, positions] = k
            self.values[i].transpose(1, 2)[row_index, positions] = v
            parts = [
                grouped_attention(
                    q[a:b],
                    self.keys[i, first : first + b - a, :, :longest],
                    self.values[i, first : first + b - a, :, :longest],
                    None if mask is None else mask[a:b],
                )
                for a, b, first in runs
            ]
            x = stack.finish(layer, x, parts[0] if len(parts) == 1 else torch.cat(parts))
        last = x[:, 0] if n == 1 else x[torch.arange(rows, device=device), torch.tensor(counts, device=device) - 1]
        return rms_norm(last, stack.norm, stack.shape.norm_eps)


def contiguous_runs(slots: list[int]) -> list[tuple[int, int, int]]:
    """Cut ascending slots into (row from, row to, first slot), each a view of the cache rather than a copy."""
    runs: list[tuple[int, int, int]] = []
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            runs.append((begin, end, slots[begin]))
            begin = end
    return runs
