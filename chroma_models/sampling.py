"""Choosing tokens: greedy, or by noise that is a function of (seed, index, codebook) and nothing else.

Because the noise knows neither batch nor slot nor step order, a turn in other company, or continued on another
replica, draws what it would have drawn. Argmax of logits plus Gumbel noise samples the softmax exactly, which is the
reference's argmax(p / Exp(1)) written in logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chroma_models.transfer import send
from chroma_models.types import Sampling

TEXT = -1  # the codebook number under which the Reasoner draws


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_MIX1, _MIX2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_STEP_INDEX, _STEP_BOOK, _STEP_TOKEN = (
    _signed(x) for x in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7)
)
_UNIFORM_BITS = 23  # (bits + 0.5) / 2**23 is exact in float32 and never 0 or 1


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 on wrapping int64; shifts are made logical by masking."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def gumbel(seeds: Tensor, indices: Tensor, books: Tensor, vocab: int) -> Tensor:
    """Standard Gumbel noise.

    seeds    int64 [rows]
    indices  int64 [rows]: frame of an audio code, token index of a text step
    books    int64 [books]: codebook numbers, or TEXT
    returns  float32 [rows, books, vocab]
    """
    key = _mix(_mix(seeds)[:, None] + indices[:, None] * _STEP_INDEX + books * _STEP_BOOK)
    bits = _mix(key[..., None] + torch.arange(vocab, device=seeds.device) * _STEP_TOKEN)
    bits = (bits >> (64 - _UNIFORM_BITS)) & ((1 << _UNIFORM_BITS) - 1)
    uniform = (bits.float() + 0.5) * 2.0**-_UNIFORM_BITS
    return -torch.log(-torch.log(uniform))


@dataclass(frozen=True)
class RowSampling:
    """How each row of a batch draws. greedy and widest_k are known on the host, so choosing never waits for a GPU."""

    temperature: Tensor  # float32 [rows], 0 = greedy
    top_k: Tensor  # int64 [rows], 0 = all
    seeds: Tensor  # int64 [rows]
    indices: Tensor  # int64 [rows]
    greedy: bool
    widest_k: int

    @classmethod
    def of(cls, rows: Sequence[Sampling], indices: Sequence[int], device: torch.device) -> "RowSampling":
        drawn = [[r.top_k for r in rows], [r.seed for r in rows], list(indices)]
        ints = send(torch.tensor(drawn, dtype=torch.int64), device)
        return cls(
            temperature=send(torch.tensor([r.temperature for r in rows], dtype=torch.float32), device),
            top_k=ints[0],
            seeds=ints[1],
            indices=ints[2],
            greedy=all(r.temperature == 0 for r in rows),
            widest_k=max((r.top_k for r in rows), default=0),
        )

    def noise(self, books: Tensor, vocab: int) -> Tensor | None:
        """Gumbel noise float32 [rows, books, vocab], or None when nobody draws."""
        return None if self.greedy else gumbel(self.seeds, self.indices, books, vocab)


def choose(logits: Tensor, sampling: RowSampling, noise: Tensor | None) -> Tensor:
    """Pick one id per row.

    logits   [rows, vocab], already without forbidden ids; computed on in float32
    noise    float32 [rows, vocab], or None when every row is greedy
    returns  int64 [rows]
    Order: temperature, top-k (ties with the k-th stay), noise. Source: the reference's codebook-0 sampler.
    """
    logits = logits.float()
    greedy = logits.argmax(-1)
    if noise is None:
        return greedy
    scaled = logits / sampling.temperature.clamp(min=1e-6)[:, None]
    widest = min(sampling.widest_k, logits.shape[-1])
    if widest > 0:
        best = scaled.topk(widest).values
        rank = (sampling.top_k.clamp(max=widest) - 1).clamp(min=0)
        threshold = best.gather(1, rank[:, None])
        drop = (scaled < threshold) & (sampling.top_k > 0)[:, None]
        scaled = scaled.masked_fill(drop, float("-inf"))
    drawn = (scaled + noise).argmax(-1)
    return torch.where(sampling.temperature > 0, drawn, greedy)
