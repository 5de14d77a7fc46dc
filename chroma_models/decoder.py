"""The depth decoder: from a backbone state and code 0 to the other seven codes of a frame."""

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.codebooks import Codebooks
from chroma_models.layers import Layer, Stack, TensorSource, fold, in_by_out
from chroma_models.sampling import RowSampling, choose
from chroma_models.threads import threads_for
from chroma_models.tokens import Tokens
from chroma_models.types import CODEBOOKS

Positions = Literal["published", "contiguous"]
_ROPE = {"published": [0, 0, 1, 2, 3, 4, 5, 6], "contiguous": [0, 1, 2, 3, 4, 5, 6, 7]}


class DepthDecoder:
    """Eight positions, seven predictions, a fresh cache per frame; stateless between calls.

    A code enters at one position only, so what it becomes on its way to the first layer's attention is looked up: the
    tables hold, for every code of every book, its projection and its rotated queries, keys and values.
    positions "published" is what the authors' generate() runs: the prepended hidden state is not counted.
    """

    def __init__(
        self, architecture: Architecture, get: TensorSource, codebooks: Codebooks, positions: Positions = "published"
    ) -> None:
        """get gives tensors below "decoder.": projection.weight, model..., codebook_head.weight."""
        stack = self.stack = Stack(architecture.decoder, lambda name: get(f"model.{name}"), CODEBOOKS)
        self.device, self.dtype = stack.device, stack.dtype
        self.codebook_size = architecture.codebook_size
        self.projection = in_by_out(get("projection.weight"))  # [backbone hidden, hidden]
        heads = get("codebook_head.weight")  # [7, hidden, vocab]
        self.norm = stack.norm
        if stack.folded:
            folded = [fold(head.t(), stack.norm) for head in heads]
            heads, self.norm = torch.stack([head.t() for head, _ in folded]), folded[0][1]
        self._all_heads = heads
        self.heads = [head[:, : self.codebook_size].contiguous() for head in heads]
        vocab = codebooks.vocab
        at = self.angles = torch.tensor(_ROPE[positions], device=self.device)  # rope position of each of the eight
        self.ropes = [stack.rope(p) for p in at[:, None].unbind()]
        rows = codebooks.table @ self.projection  # [CODEBOOKS * vocab, hidden]
        layer = stack.layers[0]
        self.entries = list(rows[: (CODEBOOKS - 1) * vocab].view(CODEBOOKS - 1, vocab, -1).unbind())
        self.queries: list[Tensor] = []
        self.cells: list[Tensor] = []
        for book, entry in enumerate(self.entries):
            q, kv = stack.qkv(layer, entry, self.ropes[book + 1])
            self.queries.append(q.flatten(1).contiguous())
            self.cells.append(kv.flatten(1).contiguous())
        self._width = stack.shape.hidden * max(2 * stack.shape.intermediate, self.codebook_size)
        self._books = torch.arange(1, CODEBOOKS, device=self.device)
        self._room = _Room(self, 1)
        self._lane = lru_cache(256)(self._new_lane)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows, so that no later call moves the memory that an earlier one used."""
        if self._room.rows < rows:
            self._room = _Room(self, rows)
            self._lane.cache_clear()

    def _new_lane(self, rows: int) -> "_Lane | _KernelLane":
        self.reserve(rows)
        return (_Lane if self.stack.kernels is None else _KernelLane)(self, self._room, rows)

    @torch.inference_mode()
    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> Tensor:
        """Codes of one frame for every row.

        hidden   [rows, backbone hidden], the backbone's state after its final norm
        code0    int64 [rows]
        returns  int64 [rows, CODEBOOKS], each below codebook_size; a view of memory that no later call touches
        """
        rows = hidden.shape[0]
        codes = torch.empty((CODEBOOKS, rows), dtype=torch.int64, device=self.device)
        codes[0] = code0
        lane = self._lane(rows)
        noise = sampling.noise(self._books, self.codebook_size)
        by_book = codes.unbind()
        with threads_for(rows * self._width, self.device):
            lane.begin(hidden)
            for book in range(1, CODEBOOKS):
                logits = torch.mm(lane.advance(by_book[book - 1], book), self.heads[book - 1])
                if noise is None:
                    torch.argmax(logits, -1, out=by_book[book])
                else:
                    by_book[book].copy_(choose(logits, sampling, noise[:, book - 1]))
        return codes.t()

    @torch.inference_mode()
    def logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Teacher-forced logits of codes 1..7 given all codes, the whole vocabulary.

        hidden [rows, backbone hidden], codes int64 [rows, CODEBOOKS]; returns [rows, 7, vocab]
        """
        lane = self._lane(hidden.shape[0])
        by_book = codes.t().contiguous().unbind()
        lane.begin(hidden)
        states = [lane.advance(by_book[book - 1], book) @ self._all_heads[book - 1] for book in range(1, CODEBOOKS)]
        return torch.stack(states, 1)


class _Room:
    """Buffers for a number of rows."""

    def __init__(self, decoder: DepthDecoder, rows: int) -> None:
        stack = decoder.stack
        shape = stack.shape
        self.rows = rows
        self.tokens = Tokens(stack, 2 * rows)
        size = (shape.layers, 2, rows, shape.kv_heads, CODEBOOKS, shape.head_dim)
        self.cache = torch.zeros(size, dtype=stack.dtype, device=stack.device)
        self.queries = torch.zeros((2 * rows, stack.q_width), dtype=stack.dtype, device=stack.device)
        self.cells = torch.zeros((rows, 2 * stack.kv_width), dtype=stack.dtype, device=stack.device)


class _KernelLane:
    """As _Lane, where the stack has kernels: a layer's attention, with all that goes before it, is one of them."""

    def __init__(self, decoder: DepthDecoder, room: _Room, rows: int) -> None:
        stack = decoder.stack
        assert stack.kernels is not None
        shape, device = stack.shape, stack.device
        self._decoder, self._stack, self._kernels, self._rows = decoder, stack, stack.kernels, rows
        self._both, self._single = room.tokens.first(2 * rows), room.tokens.first(rows)
        # The room's memory as [layers, rows, CODEBOOKS, 2, kv_heads, head_dim].
        cells = room.cache.view(-1)[: shape.layers * rows * CODEBOOKS * 2 * stack.kv_width]
        self._cells = cells.view(shape.layers, rows, CODEBOOKS, 2, shape.kv_heads, shape.head_dim).unbind()
        slots = torch.arange(rows, device=device)
        books = torch.arange(CODEBOOKS, device=device)[:, None]
        writes = slots * CODEBOOKS + books  # [book, row]: the cell of each token
        starts = books.expand(CODEBOOKS, rows).contiguous()
        rows_of = {"slots": slots, "row_step": 1, "scale": stack.scale, "block": 16}
        two = rows_of | {"n": 2, "starts": starts[0], "writes": writes[:2].flatten(), "token_step": rows}
        one = [rows_of | {"n": 1, "starts": starts[b], "writes": writes[b], "token_step": 0} for b in range(CODEBOOKS)]
        angles = decoder.angles[:, None].expand(CODEBOOKS, rows).contiguous()
        turns = [(stack.cos, stack.signed_sin, angles[b]) for b in range(CODEBOOKS)]
        self._first_two = two | {"rope": (stack.cos, stack.signed_sin, angles[:2].flatten())}
        self._later = [known | {"rope": turn} for known, turn in zip(one, turns, strict=True)]
        self._looked_up = one

    def begin(self, hidden: Tensor) -> None:
        """As _Lane's."""
        self._both.x[: self._rows] = hidden.to(self._decoder.dtype) @ self._decoder.projection

    def advance(self, codes: Tensor, book: int) -> Tensor:
        """As _Lane's."""
        decoder, layers = self._decoder, self._stack.layers
        if book == 1:
            tokens, known = self._both, self._first_two
            tokens.x[self._rows :].copy_(decoder.entries[0].index_select(0, codes))
        else:
            tokens, known = self._single, self._later[book]
            tokens.x.copy_(decoder.entries[book - 1].index_select(0, codes))
            queries, pairs = decoder.queries[book - 1], decoder.cells[book - 1]
            self._attend(queries, pairs, 0, tokens, self._looked_up[book] | {"sources": codes})
            tokens.finish(layers[0])
        for i in range(0 if book == 1 else 1, len(layers)):
            tokens.open(layers[i], None)
            self._attend(tokens.qkv[:, : self._stack.q_width], tokens.kv, i, tokens, known)
            tokens.finish(layers[i])
        return tokens.normalise(decoder.norm)[-self._rows :]

    def _attend(self, queries: Tensor, pairs: Tensor, i: int, tokens: Tokens, known: dict[str, Any]) -> None:
        self._kernels.attend(queries, pairs, self._cells[i], tokens.attended, **known)


class _Lane:
    """Views of a room for exactly some rows. Two tokens a row in the first call, all rows' first ones first."""

    def __init__(self, decoder: DepthDecoder, room: _Room, rows: int) -> None:
        stack = decoder.stack
        shape = stack.shape
        kv, dim = shape.kv_heads, shape.head_dim
        group = shape.heads // kv
        self._decoder, self._stack, self._rows = decoder, stack, rows
        self._both, self._single = room.tokens.first(2 * rows), room.tokens.first(rows)
        self._one_row = rows == 1
        flat = room.cache.view(shape.layers, 2, -1)[:, :, : rows * kv * CODEBOOKS * dim]
        cache = flat.view(shape.layers, 2, rows * kv, CODEBOOKS, dim)
        by_row = cache.view(shape.layers, 2, rows, kv, CODEBOOKS, dim)
        # [layers][position]: where the keys and values of a position go, [rows, 2, kv_heads, dim]
        self._cells = [[part[:, :, :, p].transpose(0, 1) for p in range(CODEBOOKS)] for part in by_row.unbind()]
        self._two = [part[:, :, :, :2].permute(3, 1, 0, 2, 4) for part in by_row.unbind()]
        # [layers][book]: what a query of that book sees
        self._keys = [[part[0, :, : b + 1].transpose(1, 2) for b in range(CODEBOOKS)] for part in cache.unbind()]
        self._values = [[part[1, :, : b + 1] for b in range(CODEBOOKS)] for part in cache.unbind()]
        q2, q1 = (t.qkv[:, : stack.q_width] for t in (self._both, self._single))
        self._queries2 = room.queries[: 2 * rows].view(rows * kv, 2 * group, dim)
        self._queries1 = room.queries[:rows].view(rows * kv, group, dim)
        self._inward2 = room.queries[: 2 * rows].view(rows, kv, 2, group, dim).permute(2, 0, 1, 3, 4)
        self._outward2 = q2.view(2, rows, kv, group, dim)
        self._looked_up = room.queries[:rows]
        self._inward1 = room.queries[:rows].view(rows, kv, group, dim)
        self._outward1 = q1.view(rows, kv, group, dim)
        self._kv2 = self._both.kv.view(2, rows, 2, kv, dim)
        self._kv1 = self._single.kv.view(rows, 2, kv, dim)
        self._found = room.cells[:rows]
        self._found_kv = self._found.view(rows, 2, kv, dim)
        self._attended2 = self._both.attended.view(2, rows, kv, group, dim)
        self._attended1 = self._single.attended.view(rows * kv, group, dim)
        mask = torch.zeros((2 * group, 2), dtype=stack.dtype, device=stack.device)
        mask[:group, 1] = float("-inf")
        self._causal = mask
        first, second = decoder.ropes[:2]
        axis = 0 if stack.folded else 1
        self._rope2 = torch.cat([first.repeat_interleave(rows, axis), second.repeat_interleave(rows, axis)], axis)

    def begin(self, hidden: Tensor) -> None:
        """Position 0: hidden [rows, backbone hidden]."""
        self._both.x[: self._rows] = hidden.to(self._decoder.dtype) @ self._decoder.projection

    def advance(self, codes: Tensor, book: int) -> Tensor:
        """Feed code book - 1 of every row, int64 [rows]; the state that predicts code `book`, [rows, hidden]."""
        return self._first(codes) if book == 1 else self._next(codes, book)

    def _first(self, codes: Tensor) -> Tensor:
        tokens, rows = self._both, self._rows
        tokens.x[rows:] = self._decoder.entries[0].index_select(0, codes)
        for i, layer in enumerate(self._stack.layers):
            tokens.open(layer, self._rope2)
            self._two[i].copy_(self._kv2)
            self._inward2.copy_(self._outward2)
            attended = self._attend(self._queries2, i, 1, self._causal)
            self._attended2.copy_(attended.view(rows, -1, 2, *self._attended2.shape[3:]).permute(2, 0, 1, 3, 4))
            tokens.finish(layer)
        return tokens.normalise(self._decoder.norm)[rows:]

    def _next(self, codes: Tensor, book: int) -> Tensor:
        decoder, tokens = self._decoder, self._single
        layers = self._stack.layers
        self._look_up(codes, book)
        self._close(layers[0], 0, book)
        for i in range(1, len(layers)):
            tokens.open(layers[i], decoder.ropes[book])
            self._cells[i][book].copy_(self._kv1)
            self._inward1.copy_(self._outward1)
            self._close(layers[i], i, book)
        return tokens.normalise(decoder.norm)

    def _look_up(self, codes: Tensor, book: int) -> None:
        """The first layer up to its attention, from the tables."""
        decoder = self._decoder
        if self._one_row:
            torch.index_select(decoder.entries[book - 1], 0, codes, out=self._single.x)
        else:
            self._single.x.copy_(decoder.entries[book - 1].index_select(0, codes))
        torch.index_select(decoder.queries[book - 1], 0, codes, out=self._looked_up)
        torch.index_select(decoder.cells[book - 1], 0, codes, out=self._found)
        self._cells[0][book].copy_(self._found_kv)

    def _close(self, layer: Layer, i: int, book: int) -> None:
        self._attended1.copy_(self._attend(self._queries1, i, book, None))
        self._single.finish(layer)

    def _attend(self, queries: Tensor, i: int, book: int, mask: Tensor | None) -> Tensor:
        """Softmax attention of [rows * kv_heads, queries, dim] over the positions up to `book`: plain products."""
        scores = torch.bmm(queries, self._keys[i][book])
        if self._stack.scale != 1.0:
            scores = scores * self._stack.scale
        if mask is not None:
            scores = scores + mask
        return torch.bmm(torch.softmax(scores, -1), self._values[i][book])
