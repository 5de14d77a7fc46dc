"""The backbone: a Llama over text rows and frame embeddings, with a head for codebook 0."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.codebooks import Codebooks
from chroma_models.errors import InvalidVoice
from chroma_models.layers import Stack, TensorSource, in_by_out
from chroma_models.transfer import send
from chroma_models.types import CODEBOOKS, EncodedVoice, Frame, TextStep


class Backbone:
    """Weights and embeddings; the KV cache and the turns are the engine's."""

    def __init__(
        self,
        architecture: Architecture,
        get: TensorSource,
        codebooks: Codebooks,
        text_table: Tensor,
        spare_positions: int = 0,
    ) -> None:
        """get gives tensors below "backbone."; text_table is the thinker's embed_tokens [text_vocab, hidden]."""
        self.architecture = architecture
        self.positions = architecture.backbone.positions
        self.stack = Stack(architecture.backbone, lambda name: get(f"model.{name}"), self.positions + spare_positions)
        self.device, self.dtype = self.stack.device, self.stack.dtype
        self.hidden = architecture.backbone.hidden
        self.head = in_by_out(get("codebook0_head.weight"))  # [hidden, vocab]
        self._real_head = self.head[:, : architecture.codebook_size].contiguous()
        self.codebooks = codebooks
        self.text_table = text_table

    def logits(self, hidden: Tensor) -> Tensor:
        """Codebook 0 over real codes only: [rows, hidden] -> [rows, codebook_size]. Special ids cannot be chosen."""
        return hidden @ self._real_head

    def embed_voice(self, text_tokens: Sequence[int], voice: EncodedVoice) -> Tensor:
        """The voice prompt: text_start | transcript | text_end | frames | zero vector, as [positions, hidden].

        Source: the reference's prompt of one row; a single turn has no padding, so every position counts.
        """
        a = self.architecture
        ids = torch.tensor([a.text_start, *text_tokens, a.text_end], device=self.device)
        frames = self.codebooks.embed_frames(codes_tensor(voice.codes, self.device))
        zero = torch.zeros((1, self.hidden), dtype=self.dtype, device=self.device)
        return torch.cat([self.text_table[ids], frames, zero])

    def embed_pairs(self, steps: Sequence[TextStep]) -> Tensor:
        """[h_k, e_k] of some text steps: [steps, 2, hidden]."""
        tokens = send(torch.tensor([step.token for step in steps]), self.device)
        return torch.stack([self.text_rows(steps), self.text_table.index_select(0, tokens)], 1)

    def text_rows(self, steps: Sequence[TextStep]) -> Tensor:
        """The hidden rows of some text steps: [steps, hidden], on the device."""
        if len({len(step.row) for step in steps}) == 1:
            rows = self.row(b"".join(step.row for step in steps), len(steps)).view(len(steps), -1)
        else:
            rows = torch.stack([self.row(step.row).float() for step in steps])
        return send(rows, self.device).to(self.dtype)

    def embed_progress(self, frames: Sequence[Frame]) -> Tensor:
        """What was fed to predict these frames, the first as if it began the reply: [positions, hidden].

        That is pair | F | F pair | F ..., and not the last frame's own embedding, which the next step brings.
        """
        order: list[int] = []  # positions in the order they are fed, as rows of [frames..., pairs...]
        steps = [frame.step for frame in frames if frame.step is not None]
        pair = len(frames)
        for i, frame in enumerate(frames):
            if i > 0:
                order.append(i - 1)
            if frame.step is not None:
                order += [pair, pair + 1]
                pair += 2
        embedded = self.codebooks.embed_frames(codes_tensor(b"".join(f.codes for f in frames), self.device))
        if steps:
            embedded = torch.cat([embedded, self.embed_pairs(steps).flatten(0, 1)])
        return embedded[torch.tensor(order, dtype=torch.int64, device=self.device)]

    def row(self, data: bytes, count: int = 1) -> Tensor:
        """Hidden rows of text steps, bf16 or float32 as their length says: [count * hidden]."""
        dtype = torch.float32 if len(data) == 4 * self.hidden * count else torch.bfloat16
        return torch.frombuffer(bytearray(data), dtype=dtype)


def check_codes(codes: bytes, codebook_size: int) -> None:
    """Raises InvalidVoice unless codes are whole frames of ids 0..codebook_size-1, at least one of them."""
    ids = np.frombuffer(codes, np.int16) if len(codes) % 2 == 0 else np.zeros(0, np.int16)
    if ids.size == 0 or ids.size % CODEBOOKS:
        raise InvalidVoice(f"Codes come in frames of {CODEBOOKS} int16; got {len(codes)} bytes.", "voice")
    if ids.min() < 0 or ids.max() >= codebook_size:
        raise InvalidVoice(f"Codes must lie in 0..{codebook_size - 1}; got {ids.min()}..{ids.max()}.", "voice")


def codes_tensor(codes: bytes, device: torch.device) -> Tensor:
    """int16 bytes to int64 [frames, CODEBOOKS]."""
    flat = torch.frombuffer(bytearray(codes), dtype=torch.int16) if codes else torch.zeros(0, dtype=torch.int16)
    return flat.view(-1, CODEBOOKS).to(device, torch.int64)
