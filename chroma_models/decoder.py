"""The depth decoder: from a backbone state and code 0 to the other seven codes of a frame."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.codebooks import Codebooks
from chroma_models.layers import Stack, TensorSource, grouped_attention, rms_norm
from chroma_models.sampling import RowSampling, choose
from chroma_models.types import CODEBOOKS

Positions = Literal["published", "contiguous"]
_ROPE = {"published": [0, 0, 1, 2, 3, 4, 5, 6], "contiguous": [0, 1, 2, 3, 4, 5, 6, 7]}


class DepthDecoder:
    """Eight positions, seven predictions, a fresh cache per frame; stateless between calls.

    The input projection is folded into the embedding table once, so a step reads one row instead of multiplying.
    positions "published" is what the authors' generate() runs: the prepended hidden state is not counted.
    """

    def __init__(
        self, architecture: Architecture, get: TensorSource, codebooks: Codebooks, positions: Positions = "published"
    ) -> None:
        """get gives tensors below "decoder.": projection.weight, model..., codebook_head.weight."""
        self.stack = Stack(architecture.decoder, lambda name: get(f"model.{name}"), CODEBOOKS)
        self.device, self.dtype = self.stack.device, self.stack.dtype
        self.codebook_size = architecture.codebook_size
        self._projection = get("projection.weight")
        self._heads = get("codebook_head.weight").transpose(1, 2).contiguous()  # [7, vocab, hidden]
        self._rows = F.linear(codebooks.table, self._projection)  # [CODEBOOKS * vocab, decoder hidden]
        self._vocab = codebooks.vocab
        cos, sin = self.stack.rope(torch.tensor(_ROPE[positions], device=self.device))
        self._rope = [(cos[:2], sin[:2])] + [(cos[j : j + 1], sin[j : j + 1]) for j in range(2, CODEBOOKS)]
        self._books = torch.arange(1, CODEBOOKS, device=self.device)
        self._causal = torch.zeros((1, 1, 2, 2), dtype=self.dtype, device=self.device)
        self._causal[..., 0, 1] = float("-inf")
        self._keys = self._values = torch.empty(0)
        self._reserve(1)

    def _reserve(self, rows: int) -> None:
        shape = self.stack.shape
        size = (shape.layers, rows, shape.kv_heads, CODEBOOKS, shape.head_dim)
        self._keys = torch.empty(size, dtype=self.dtype, device=self.device)
        self._values = torch.empty_like(self._keys)

    @torch.inference_mode()
    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> Tensor:
        """Codes of one frame for every row.

        hidden   [rows, backbone hidden], the backbone's state after its final norm
        code0    int64 [rows]
        returns  int64 [rows, CODEBOOKS], each below codebook_size
        """
        rows = hidden.shape[0]
        codes = torch.empty((rows, CODEBOOKS), dtype=torch.int64, device=self.device)
        codes[:, 0] = code0
        noise = sampling.noise(self._books, self.codebook_size)
        for book in range(1, CODEBOOKS):
            head = self._heads[book - 1, : self.codebook_size]
            logits = F.linear(self._advance(hidden, codes, book), head)
            codes[:, book] = choose(logits, sampling, None if noise is None else noise[:, book - 1])
        return codes

    @torch.inference_mode()
    def logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Teacher-forced logits of codes 1..7 given all codes, the whole vocabulary.

        hidden [rows, backbone hidden], codes int64 [rows, CODEBOOKS]; returns [rows, 7, vocab]
        """
        books = range(1, CODEBOOKS)
        return torch.stack([F.linear(self._advance(hidden, codes, b), self._heads[b - 1]) for b in books], 1)

    def _advance(self, hidden: Tensor, codes: Tensor, book: int) -> Tensor:
        """Feed code book-1 (and, first, the hidden state); the state that predicts code `book`: [rows, hidden]."""
        rows = hidden.shape[0]
        x = self._rows[codes[:, book - 1] + (book - 1) * self._vocab]
        if book == 1:
            if rows > self._keys.shape[1]:
                self._reserve(rows)
            x = torch.stack([F.linear(hidden.to(self.dtype), self._projection), x], 1)
            begin, mask = 0, self._causal
        else:
            x, begin, mask = x[:, None], book, None
        cos, sin = self._rope[book - 1]
        end = book + 1
        for i, layer in enumerate(self.stack.layers):
            q, k, v = self.stack.qkv(layer, x, cos, sin)
            self._keys[i, :rows, :, begin:end] = k.transpose(1, 2)
            self._values[i, :rows, :, begin:end] = v.transpose(1, 2)
            attended = grouped_attention(q, self._keys[i, :rows, :, :end], self._values[i, :rows, :, :end], mask)
            x = self.stack.finish(layer, x, attended)
        return rms_norm(x[:, -1], self.stack.norm, self.stack.shape.norm_eps)
