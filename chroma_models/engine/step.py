"""The tensors of the Backbone's step loop: what one pass over some slots reads and writes."""

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from chroma_models.backbone import Backbone
from chroma_models.engine.decoder_engine import FrameDecoder
from chroma_models.engine.kv_cache import KvCache
from chroma_models.interleave import segment_positions
from chroma_models.sampling import RowSampling, choose
from chroma_models.types import CODEBOOKS, Sampling, TextStep

SPARE_POSITIONS = 2  # padding of a mixed step is written past a row's end (KvCache.step)
LONGEST_SEGMENT = segment_positions(1, pair=True)


class FrameStep:
    """KV cache, last codes and input buffer of every slot, preallocated. Used from the engine's thread alone."""

    def __init__(self, backbone: Backbone, decoder: FrameDecoder, slots: int) -> None:
        self.backbone = backbone
        self.decoder = decoder
        self._cache = KvCache(backbone.stack, slots, backbone.positions + SPARE_POSITIONS)
        self._codes = torch.zeros((slots, CODEBOOKS), dtype=torch.int64, device=backbone.device)
        size = (slots, LONGEST_SEGMENT, backbone.hidden)
        self._input = torch.zeros(size, dtype=backbone.dtype, device=backbone.device)
        self._book0 = torch.zeros(1, dtype=torch.int64, device=backbone.device)

    def set_codes(self, slot: int, codes: Tensor) -> None:
        """The frame that a resumed turn's next step begins with: int64 [CODEBOOKS]."""
        self._codes[slot] = codes

    def prefill(self, slot: int, start: int, x: Tensor) -> None:
        """Positions start.. of one slot: x [positions, hidden]."""
        self._cache.prefill(self.backbone.stack, slot, start, x)

    def prefix_bytes(self, positions: int) -> int:
        """Size of what read_prefix gives."""
        return self._cache.prefix_bytes(positions)

    def read_prefix(self, slot: int, positions: int) -> Tensor:
        """A copy of the keys and values of a slot's first positions, for write_prefix."""
        return self._cache.read_prefix(slot, positions)

    def write_prefix(self, slot: int, prefix: Tensor) -> None:
        """Begin a slot with keys and values that another slot computed for the same embeddings."""
        self._cache.write_prefix(slot, prefix)

    @torch.inference_mode()
    def propose(
        self,
        slots: list[int],
        positions: list[int],
        frames: list[int],
        steps: Sequence[TextStep | None],
        sampling: Sequence[Sampling],
    ) -> "Future[Tensor]":
        """Backbone and code 0 of some rows; the rest of the frame is the decoder's.

        slots      distinct, ascending
        positions  what each slot holds; frames: the index each row makes now; steps: the text injected before it
        returns    int64 [rows, CODEBOOKS], when the decoder has answered
        """
        backbone = self.backbone
        counts = [segment_positions(frame, step is not None) for frame, step in zip(frames, steps, strict=True)]
        x = self._input[: len(slots), : max(counts)]
        if any(frames):
            x[:, 0] = backbone.codebooks.embed_frames(self._codes[slots])
        paired = [i for i, step in enumerate(steps) if step is not None]
        if paired:
            pairs = backbone.embed_pairs([step for step in steps if step is not None])
            begin = torch.tensor([counts[i] - 2 for i in paired], device=backbone.device)
            index = torch.tensor(paired, device=backbone.device)
            x[index, begin], x[index, begin + 1] = pairs[:, 0], pairs[:, 1]
        hidden = self._cache.step(backbone.stack, slots, positions, x, counts)
        row_sampling = RowSampling.of(sampling, frames, backbone.device)
        noise = row_sampling.noise(self._book0, backbone.architecture.codebook_size)
        code0 = choose(backbone.logits(hidden), row_sampling, None if noise is None else noise[:, 0])
        return self.decoder.complete(hidden, code0, row_sampling)

    def commit(self, slots: list[int], codes: Tensor) -> np.ndarray:
        """Keep the codes int64 [rows, CODEBOOKS] for each slot's next step; int16 [rows, CODEBOOKS] for the host."""
        self._codes[slots] = codes
        return codes.to("cpu", torch.int16).numpy()
