"""One turn at a time, slowly and obviously, on transformers' own modules: the oracle of the tests.

Every frame recomputes its whole sequence; there is no cache, no slot and no batch to get wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from chroma_models.checkpoint.architecture import Architecture, StackShape
from chroma_models.sampling import RowSampling, choose
from chroma_models.types import CODEBOOKS, Sampling

CPU = torch.device("cpu")


class Weights(Protocol):
    """Where tensors come from: a checkpoint's files, or weights drawn in memory."""

    @property
    def architecture(self) -> Architecture: ...

    def tensor(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor: ...


def llama(shape: StackShape, checkpoint: Weights, prefix: str, attention: str = "eager") -> LlamaModel:
    """transformers' Llama with a checkpoint's weights, float32; it is only ever given embeddings."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope.theta}
    if shape.rope.factor != 1.0:
        rope = {
            "rope_type": "llama3",
            "rope_theta": shape.rope.theta,
            "factor": shape.rope.factor,
            "low_freq_factor": shape.rope.low_freq_factor,
            "high_freq_factor": shape.rope.high_freq_factor,
            "original_max_position_embeddings": shape.rope.original_positions,
        }
    config = LlamaConfig(
        vocab_size=1,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.norm_eps,
        max_position_embeddings=shape.positions,
        rope_parameters=rope,
        attn_implementation=attention,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaModel(config).eval()
    model.embed_tokens = nn.Identity()
    weights = {name: checkpoint.tensor(prefix + name, CPU, torch.float32) for name in model.state_dict()}
    model.load_state_dict(weights, strict=True)
    return model


class Reference:
    """Backbone and depth decoder of one turn (the Reasoner's rows and tokens are given)."""

    def __init__(self, checkpoint: Weights, positions: Literal["published", "contiguous"] = "published") -> None:
        self.architecture: Architecture = checkpoint.architecture
        self._backbone = llama(checkpoint.architecture.backbone, checkpoint, "backbone.model.")
        self._decoder = llama(checkpoint.architecture.decoder, checkpoint, "decoder.model.")

        def weight(name: str) -> Tensor:
            return checkpoint.tensor(name, CPU, torch.float32)

        self._head0 = weight("backbone.codebook0_head.weight")
        self._heads = weight("decoder.codebook_head.weight")
        self._projection = weight("decoder.projection.weight")
        self._frame_audio = weight("backbone.audio_embedding.embed_audio_tokens.weight")
        self._code_audio = weight("decoder.audio_embedding.embed_audio_tokens.weight")  # as a rule the same table
        self._text = weight("thinker.model.embed_tokens.weight")
        self._positions = [0, 0, 1, 2, 3, 4, 5, 6] if positions == "published" else list(range(8))

    def embed_code(self, code: int, book: int) -> Tensor:
        """As the depth decoder reads it."""
        return self._code_audio[code + book * self.architecture.audio_vocab]

    def embed_frame(self, codes: Sequence[int]) -> Tensor:
        """As the backbone reads it."""
        rows = [code + book * self.architecture.audio_vocab for book, code in enumerate(codes)]
        return self._frame_audio[rows].sum(0)

    def prompt(self, text_tokens: Sequence[int], voice_codes: np.ndarray) -> list[Tensor]:
        a = self.architecture
        text = [self._text[t] for t in (a.text_start, *text_tokens, a.text_end)]
        frames = [self.embed_frame(codes) for codes in voice_codes.tolist()]
        return [*text, *frames, torch.zeros_like(text[0])]

    def window_start(self, prompt: int, index: int) -> int:
        """The first frame still in the sequence when frame `index` is predicted, found by walking there.

        A window may hold as many frames as fit the positions with a text pair before every second one, an even number
        of them; when the next two do not fit, the recent half of them (an even number again) is kept.
        """

        def fits(frames: int) -> bool:
            return prompt + (frames - 1) + 2 * -(-frames // 2) <= self.architecture.backbone.positions

        start = 0
        for i in range(0, index + 1, 2):
            if not fits(i - start + 2):
                start = i - (i - start) // 4 * 2
        return start

    def sequence(
        self,
        text_tokens: Sequence[int],
        voice_codes: np.ndarray,
        rows: Tensor,
        tokens: Sequence[int],
        history: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Everything fed before the frame that follows a history of frames: the prompt, and the recent window."""
        fed = self.prompt(text_tokens, voice_codes)
        start = self.window_start(len(fed), len(history))
        last = tokens.index(self.architecture.im_end) if self.architecture.im_end in tokens else len(tokens)
        for index in range(start, len(history) + 1):
            if index > start:
                fed.append(self.embed_frame(history[index - 1]))
            if index % 2 == 0 and index // 2 <= last:
                fed += [rows[index // 2], self._text[tokens[index // 2]]]
        return fed

    @torch.no_grad()
    def frame(self, sequence: Sequence[Tensor], sampling: Sampling, index: int) -> tuple[list[int], float]:
        """The codes after a sequence of embeddings, and the smallest gap between the two best logits on the way."""
        hidden = self._backbone(inputs_embeds=torch.stack(list(sequence))[None]).last_hidden_state[0, -1]
        code, margin = self._choose(self._head0 @ hidden, sampling, index, 0)
        codes = [code]
        inputs = [hidden, self.embed_code(code, 0)]
        for book in range(1, CODEBOOKS):
            x = torch.stack(inputs) @ self._projection.T
            position_ids = torch.tensor([self._positions[: len(inputs)]])
            state = self._decoder(inputs_embeds=x[None], position_ids=position_ids).last_hidden_state[0, -1]
            code, gap = self._choose(state @ self._heads[book - 1], sampling, index, book)
            codes.append(code)
            margin = min(margin, gap)
            inputs.append(self.embed_code(code, book))
        return codes, margin

    def _choose(self, logits: Tensor, sampling: Sampling, index: int, book: int) -> tuple[int, float]:
        logits = logits[None, : self.architecture.codebook_size]
        row = RowSampling.of([sampling], [index], CPU)
        noise = row.noise(torch.tensor([book]), logits.shape[-1])
        best = logits[0].topk(2).values
        return int(choose(logits, row, None if noise is None else noise[:, 0])), float(best[0] - best[1])

    def generate(
        self,
        text_tokens: Sequence[int],
        voice_codes: np.ndarray,
        rows: Tensor,
        tokens: Sequence[int],
        sampling: Sampling,
        max_frames: int,
    ) -> Iterator[tuple[list[int], float]]:
        """Frames of a reply, each with its smallest margin, until end of speech, end of text or max_frames.

        Every frame's sequence is laid out anew from the frames before it.

        voice_codes [frames, CODEBOOKS]; rows float32 [steps, hidden] and tokens are the Reasoner's
        """
        history: list[list[int]] = []
        for index in range(max_frames):
            if index % 2 == 0 and index // 2 >= len(tokens) and self.architecture.im_end not in tokens:
                return
            sequence = self.sequence(text_tokens, voice_codes, rows, tokens, history)
            codes, margin = self.frame(sequence, sampling, index)
            if any(codes):
                yield codes, margin
            if not any(codes[:-1]):
                return
            history.append(codes)
