"""Preallocated keys and values of every slot, and a transformer step over some of them."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.layers import Stack, grouped_attention, rms_norm
from chroma_models.tokens import Tokens

BUCKET = 64  # keys are read in multiples of this, the rest masked, so that views of the cache are made once


class KvCache:
    """cells [layers, slots, positions, 2, kv_heads, head_dim], keys before values, written and attended to in place."""

    def __init__(self, stack: Stack, slots: int, positions: int, scratch: int = 0) -> None:
        """scratch: slots beyond the last one, for what is computed and not wanted."""
        shape = stack.shape
        self.scratch = slots  # the first of them
        total = slots + scratch
        size = (shape.layers, total, positions, 2, shape.kv_heads, shape.head_dim)
        self.cells = torch.zeros(size, dtype=stack.dtype, device=stack.device)
        self.slots, self.positions = slots, positions
        self.flat = list(self.cells.view(shape.layers, total * positions, 2 * stack.kv_width))
        # Row i: positions - i keys are seen, then none. An index into overlapping rows makes a step's whole mask.
        self._stairs = torch.zeros(2 * positions, dtype=stack.dtype, device=stack.device)
        self._stairs[positions:] = float("-inf")
        self._lane = lru_cache(512)(self._new_lane)
        self._tokens: Tokens | None = None
        self.views = lru_cache(1024)(self._views)
        self.rows_seen = lru_cache(64)(self._rows_seen)

    def _views(self, first: int, count: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of neighbouring slots, per layer: each [count, kv_heads, length, head_dim]."""
        part = self.cells[:, first : first + count, :length].permute(3, 0, 1, 4, 2, 5)
        return list(zip(part[0], part[1], strict=True))

    def _rows_seen(self, length: int) -> Tensor:
        """[positions, length]: row `positions - 1 - p` is the additive mask of a query at position p."""
        return self._stairs.as_strided((self.positions, length), (1, 1))

    @torch.inference_mode()
    def prefill(self, stack: Stack, slot: int, start: int, x: Tensor) -> Tensor:
        """Run one turn's positions start.. through the stack.

        x [positions, hidden]; returns the same shape after the final norm. Attends to everything before it.
        """
        n = x.shape[0]
        end = start + n
        at = torch.arange(start, end, device=x.device)
        rope = stack.rope(at)
        mask = self.rows_seen(end)[self.positions - 1 - at][None, None]
        for layer, cells, (keys, values) in zip(stack.layers, self.cells, self._views(slot, 1, end), strict=True):
            q, kv = stack.qkv(layer, x, rope)
            cells[slot, start:end] = kv
            x = stack.finish(layer, x, grouped_attention(q[None], keys, values, mask, stack.scale)[0])
        return rms_norm(x, stack.norm, stack.shape.norm_eps)

    def prefix_bytes(self, positions: int) -> int:
        """Size of what read_prefix gives."""
        return self.cells[:, 0, 0].nbytes * positions

    @torch.inference_mode()
    def read_prefix(self, slot: int, positions: int) -> Tensor:
        """A copy of a slot's first positions: [layers, positions, 2, kv_heads, head_dim]."""
        return self.cells[:, slot, :positions].clone()

    @torch.inference_mode()
    def write_prefix(self, slot: int, prefix: Tensor) -> None:
        """Begin a slot with what read_prefix gave, instead of prefilling the same positions again."""
        self.cells[:, slot, : prefix.shape[1]] = prefix

    def lane(self, stack: Stack, counts: list[int]) -> "Lane":
        """Where a step of rows with so many positions each finds its inputs: fill lane.x, then run."""
        return self._lane(stack, len(counts), sum(counts), max(counts))

    def _new_lane(self, stack: Stack, rows: int, count: int, n: int) -> "Lane":
        if self._tokens is None or self._tokens.count < count:
            self._tokens = Tokens(stack, max(count, 3 * min(self.slots, 64)))
        return Lane(self, stack, self._tokens.first(count), rows, n)

    @torch.inference_mode()
    def step(self, stack: Stack, slots: list[int], lengths: list[int], x: Tensor, counts: list[int]) -> Tensor:
        """Advance several turns by 1..n positions each, in one pass.

        slots    distinct cache rows, ascending
        lengths  positions each slot already holds
        x        [rows, n, hidden]; row r uses its first counts[r] positions, the rest is padding
        returns  [rows, hidden]: the last used position of each row after the final norm
        """
        lane = self.lane(stack, counts)
        if lane.tokens.count == x.shape[0] * x.shape[1]:
            lane.x.copy_(x.flatten(0, 1))
        else:
            used = torch.arange(x.shape[1]) < torch.tensor(counts)[:, None]
            lane.x.copy_(x[used.to(x.device)])
        return lane.run(slots, lengths, counts)


class Lane:
    """A step over a given number of rows and tokens, its buffers and views made once.

    Tokens of one row follow each other; x [tokens, hidden] is where they are put. All else that a step depends on is
    a few integers, written to `_host` and from there to the device in one copy.
    """

    def __init__(
        self, cache: KvCache, stack: Stack, tokens: Tokens, rows: int, n: int, *, own_slots: bool = False
    ) -> None:
        """own_slots: row r is slot r, and no token is left out; where there are kernels, they need to know no more."""
        self._kernels = stack.kernels if own_slots else None
        self._slots = torch.arange(rows, device=stack.device)
        shape = stack.shape
        self.tokens, self.rows, self.n, self.x = tokens, rows, n, tokens.x
        self._cache, self._stack = cache, stack
        self._group = shape.heads // shape.kv_heads
        self._padded = tokens.count < rows * n
        queries = rows * n * (self._group if n > 1 else 1)
        self._sizes = [tokens.count, tokens.count, tokens.count if self._padded else 0, rows, queries]
        total = sum(self._sizes)
        pinned = stack.device.type == "cuda"
        self._staging = torch.zeros(total, dtype=torch.int64, pin_memory=pinned)
        self._host = self._staging.numpy()
        self._sent = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._ints = torch.zeros(total, dtype=torch.int64, device=stack.device) if pinned else self._staging
        self._at, self._cells, self._padding, self._last, self._seen = torch.split(self._ints, self._sizes)
        self._arange, self._offsets = np.arange(tokens.count), np.arange(n)
        split = (shape.kv_heads, self._group, shape.head_dim)
        q = tokens.qkv[:, : stack.q_width]
        size = (rows, shape.kv_heads, n, self._group, shape.head_dim)
        device, dtype = stack.device, stack.dtype
        # Queries of a row side by side as the attention takes them: [rows, kv_heads, n, group, head_dim].
        if n == 1:
            self._queries = q.view(rows, *split)
        else:
            self._room = torch.zeros(size, dtype=dtype, device=device)
            self._queries = self._room.view(rows, shape.kv_heads, n * self._group, shape.head_dim)
            self._inward = self._room.transpose(1, 2)  # [rows, n, kv_heads, group, head_dim]
        self._q = q
        if self._padded:
            self._spread = torch.zeros((rows * n, stack.q_width), dtype=dtype, device=device)
        elif n > 1:
            self._outward = q.view(rows, n, *split)
        self._result = tokens.attended.view(rows, n, *split) if not self._padded else None
        self._one = rows == 1 and device.type == "cpu"

    def run(self, slots: list[int], lengths: list[int], counts: list[int]) -> Tensor:
        """See KvCache.step; x has been filled."""
        longest = max(map(int.__add__, lengths, counts)) if self._padded else max(lengths) + self.n
        length = min(-(-longest // BUCKET) * BUCKET, self._cache.positions)
        self._plan(slots, lengths, counts)
        return self.pass_through(contiguous_runs(slots), length)

    def _plan(self, slots: list[int], lengths: list[int], counts: list[int]) -> None:
        """The step's integers, on the host and then on the device."""
        host, sizes = self._writable(), self._sizes
        count, positions = sizes[0], self._cache.positions
        if self.rows == 1:
            at = self._offsets + lengths[0]
            host[:count] = at
            host[count : 2 * count] = at + slots[0] * positions
            host[2 * count] = count - 1
            seen = at
        else:
            starts, steps = np.array(lengths), np.array(counts)
            ends = np.cumsum(steps)
            offsets = self._arange - np.repeat(ends - steps, steps)
            at = np.repeat(starts, steps) + offsets
            host[:count] = at
            host[count : 2 * count] = at + np.repeat(np.array(slots) * positions, steps)
            begin = 2 * count
            if self._padded:
                host[begin : begin + count] = np.repeat(np.arange(self.rows) * self.n, steps) + offsets
                begin += count
            host[begin : begin + self.rows] = ends - 1
            seen = np.minimum(starts[:, None] + self._offsets, positions - 1).ravel()
        seen = positions - 1 - seen
        host[len(host) - sizes[4] :] = np.repeat(seen, self._group) if self.n > 1 else seen
        self._send()

    def place(self, at: np.ndarray, cells: np.ndarray, last: np.ndarray) -> None:
        """The step's integers as given: position and cell of each token, none left out, and the last of each row."""
        count, host = len(at), self._writable()
        host[:count], host[count : 2 * count], host[2 * count : 2 * count + self.rows] = at, cells, last
        seen = self._cache.positions - 1 - np.minimum(at, self._cache.positions - 1)
        host[2 * count + self.rows :] = np.repeat(seen, self._group) if self.n > 1 else seen
        self._send()

    def _writable(self) -> np.ndarray:
        """The host's integers, once the device has fetched the last step's."""
        if self._sent is not None:
            self._sent.synchronize()
        return self._host

    def _send(self) -> None:
        if self._sent is not None:
            self._ints.copy_(self._staging, non_blocking=True)
            self._sent.record()

    def pass_through(self, runs: list[tuple[int, int, int]], length: int) -> Tensor:
        """The stack over tokens, integers and cache as they are: no shape depends on their values."""
        if self._kernels is not None:
            return self._pass_through_kernels(self._kernels)
        stack, cache, tokens = self._stack, self._cache, self.tokens
        rope = stack.rope(self._at)
        mask = cache.rows_seen(length).index_select(0, self._seen)
        views = [cache.views(first, b - a, length) for a, b, first in runs]
        if not self._one:
            mask = mask.view(self.rows, 1, -1, length)
        for i, layer in enumerate(stack.layers):
            tokens.open(layer, rope)
            cache.flat[i].index_copy_(0, self._cells, tokens.kv)
            self._gather()
            if self._one:
                attended = _attend_one(self._queries[0], *views[0][i], mask, stack.scale)[None]
            else:
                parts = [
                    F.scaled_dot_product_attention(self._queries[a:b], *view[i], attn_mask=mask[a:b], scale=stack.scale)
                    for (a, b, _), view in zip(runs, views, strict=True)
                ]
                attended = parts[0] if len(parts) == 1 else torch.cat(parts)
            self._scatter(attended)
            tokens.finish(layer)
        last = tokens.x if self.n == 1 else tokens.x.index_select(0, self._last)
        return rms_norm(last, stack.norm, stack.shape.norm_eps)

    def _pass_through_kernels(self, kernels: ModuleType) -> Tensor:
        """The same in fewer launches, and without a mask: a row reads its own keys, however many the others have."""
        stack, tokens = self._stack, self.tokens
        starts = self._at[:: self.n].contiguous()
        where: dict[str, Any] = {
            "slots": self._slots,
            "starts": starts,
            "writes": self._cells,
            "row_step": self.n,
            "token_step": 1,
        }
        rope = (stack.cos, stack.signed_sin, self._at)
        for layer, cells in zip(stack.layers, self._cache.cells, strict=True):
            tokens.open(layer, None)
            kernels.attend(self._q, tokens.kv, cells, tokens.attended, n=self.n, scale=stack.scale, rope=rope, **where)
            tokens.finish(layer)
        last = tokens.x if self.n == 1 else tokens.x.index_select(0, self._last)
        return rms_norm(last, stack.norm, stack.shape.norm_eps)

    def _gather(self) -> None:
        """Queries to where the attention takes them; one position a row is there already."""
        if self.n == 1:
            return
        if self._padded:
            self._spread.index_copy_(0, self._padding, self._q)
            self._inward.copy_(self._spread.view(self._inward.shape))
        else:
            self._inward.copy_(self._outward)

    def _scatter(self, attended: Tensor) -> None:
        """Attention's output [rows, kv_heads, n * group, head_dim] to the tokens it belongs to."""
        attended = attended.view(self.rows, -1, self.n, self._group, attended.shape[-1]).transpose(1, 2)
        if self._result is not None:
            self._result.copy_(attended)
        else:
            torch.index_select(attended.reshape(self.rows * self.n, -1), 0, self._padding, out=self.tokens.attended)


def _attend_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """One row on a CPU: q [kv_heads, queries, dim] over k and v [1, kv_heads, length, dim]. Two plain products cost
    half of what the fused kernel needs to get going."""
    scores = torch.bmm(q, k[0].transpose(1, 2))
    scores = mask + scores if scale == 1.0 else torch.add(mask, scores, alpha=scale)
    return torch.bmm(torch.softmax(scores, -1), v[0])


def contiguous_runs(slots: list[int]) -> list[tuple[int, int, int]]:
    """Cut ascending slots into (row from, row to, first slot), each a view of the cache rather than a copy."""
    if slots[-1] - slots[0] == len(slots) - 1:
        return [(0, len(slots), slots[0])]
    runs: list[tuple[int, int, int]] = []
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            runs.append((begin, end, slots[begin]))
            begin = end
    return runs
