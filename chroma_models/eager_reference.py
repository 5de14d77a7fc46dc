"""The public reference's way of working, kept for comparison: eager transformers, one turn, one call per position.

Per frame: one call of the backbone's LlamaModel with a DynamicCache, then seven calls of the depth decoder's with a
fresh one, each followed by its head and an argmax. What the reference's `generate()` adds around the calls (stopping
criteria, logits processors whose result it drops, model inputs prepared anew) is left out, in the reference's favour.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from chroma_models.reference import Weights, llama
from chroma_models.types import CODEBOOKS

_POSITIONS = [0, 0, 1, 2, 3, 4, 5, 6]  # as the authors' generate() runs them


class EagerReference:
    """Weights of backbone and depth decoder as transformers' modules; several turns are served one after another."""

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype, attention: str = "sdpa") -> None:
        a = self.architecture = weights.architecture
        self.backbone: Any = llama(a.backbone, weights, "backbone.model.", attention).to(device, dtype)
        self.decoder: Any = llama(a.decoder, weights, "decoder.model.", attention).to(device, dtype)

        def weight(name: str) -> Tensor:
            return weights.tensor(name, device, dtype)

        self._head0 = weight("backbone.codebook0_head.weight")
        self._heads = weight("decoder.codebook_head.weight")
        self._projection = weight("decoder.projection.weight")
        self._table = weight("decoder.audio_embedding.embed_audio_tokens.weight")
        self._offsets = torch.arange(CODEBOOKS, device=device) * a.audio_vocab
        self.device = device

    def open(self, prompt: Tensor) -> "EagerTurn":
        """A turn whose backbone has read prompt [positions, hidden]."""
        return EagerTurn(self, prompt)

    @torch.no_grad()
    def complete(self, hidden: Tensor, code0: Tensor) -> Tensor:
        """hidden [1, backbone hidden] and code 0 int64 [1] to a frame int64 [1, CODEBOOKS], greedy."""
        cache = DynamicCache()
        codes = [code0]
        size = self.architecture.codebook_size
        for book in range(1, CODEBOOKS):
            x = F.embedding(codes[-1] + (book - 1) * self.architecture.audio_vocab, self._table)[:, None]
            if book == 1:
                x = torch.cat([hidden[:, None], x], 1)
            at = _POSITIONS[: x.shape[1]] if book == 1 else [_POSITIONS[book]]
            out = self.decoder(
                inputs_embeds=F.linear(x, self._projection),
                position_ids=torch.tensor([at], device=self.device),
                past_key_values=cache,
                use_cache=True,
            )
            logits = out.last_hidden_state[:, -1] @ self._heads[book - 1]
            codes.append(logits[:, :size].float().argmax(-1))
        return torch.stack(codes, 1)


class EagerTurn:
    """One turn of the reference."""

    def __init__(self, model: EagerReference, prompt: Tensor) -> None:
        self._model, self._cache, self._codes = model, DynamicCache(), torch.empty(0)
        with torch.no_grad():
            model.backbone(inputs_embeds=prompt[None], past_key_values=self._cache, use_cache=True)

    @torch.no_grad()
    def frame(self, index: int, pair: Sequence[Tensor]) -> Tensor:
        """The next frame int64 [1, CODEBOOKS]; pair is the text pair [hidden] each, or empty."""
        model = self._model
        parts = [row[None] for row in pair]
        if index:
            parts.insert(0, F.embedding(self._codes + model._offsets, model._table).sum(1))
        x = torch.cat(parts)[None]
        out = model.backbone(inputs_embeds=x, past_key_values=self._cache, use_cache=True)
        hidden = out.last_hidden_state[:, -1]
        logits = F.linear(hidden, model._head0)[:, : model.architecture.codebook_size]
        self._codes = model.complete(hidden, logits.float().argmax(-1))
        return self._codes
