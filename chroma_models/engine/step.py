"""The tensors of the Backbone's step loop: what one pass over some slots reads and writes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from chroma_models.backbone import Backbone
from chroma_models.engine.decoder_engine import FrameDecoder
from chroma_models.engine.kv_cache import KvCache
from chroma_models.interleave import segment_positions
from chroma_models.sampling import RowSampling, choose
from chroma_models.threads import threads_for
from chroma_models.transfer import send
from chroma_models.types import CODEBOOKS, Sampling, TextStep

SPARE_POSITIONS = 2  # padding of a mixed step is written past a row's end (KvCache.step)


class FrameStep:
    """KV cache and last codes of every slot, preallocated. Used from the engine's thread alone."""

    def __init__(self, backbone: Backbone, decoder: FrameDecoder, slots: int, scratch: int = 0) -> None:
        self.backbone = backbone
        self.decoder = decoder
        self.cache = KvCache(backbone.stack, slots, backbone.positions + SPARE_POSITIONS, scratch)
        self.codes = torch.zeros((slots, CODEBOOKS), dtype=torch.int64, device=backbone.device)
        self._width = 2 * backbone.hidden * backbone.stack.shape.intermediate  # per token, of the widest product
        self._book0 = torch.zeros(1, dtype=torch.int64, device=backbone.device)

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """What can be done before the first turn; progress is told (done, of how many). Nothing, for plain calls."""

    def set_codes(self, slot: int, codes: Tensor) -> None:
        """The frame that a resumed turn's next step begins with: int64 [CODEBOOKS]."""
        self.codes[slot] = codes

    def prefill(self, slot: int, start: int, x: Tensor) -> None:
        """Positions start.. of one slot: x [positions, hidden]."""
        self.cache.prefill(self.backbone.stack, slot, start, x)

    def prefix_bytes(self, positions: int) -> int:
        """Size of what read_prefix gives."""
        return self.cache.prefix_bytes(positions)

    def read_prefix(self, slot: int, positions: int) -> Tensor:
        """A copy of the keys and values of a slot's first positions, for write_prefix."""
        return self.cache.read_prefix(slot, positions)

    def write_prefix(self, slot: int, prefix: Tensor) -> None:
        """Begin a slot with keys and values that another slot computed for the same embeddings."""
        self.cache.write_prefix(slot, prefix)

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
        with threads_for(sum(counts) * self._width, backbone.device):
            lane = self.cache.lane(backbone.stack, counts)
            self._fill(lane.x, slots, frames, counts, steps)
            hidden = lane.run(slots, positions, counts)
            row_sampling = RowSampling.of(sampling, frames, backbone.device)
            noise = row_sampling.noise(self._book0, backbone.architecture.codebook_size)
            code0 = choose(backbone.logits(hidden), row_sampling, None if noise is None else noise[:, 0])
            return self.decoder.complete(hidden, code0, row_sampling)

    def _fill(
        self, x: Tensor, slots: list[int], frames: list[int], counts: list[int], steps: Sequence[TextStep | None]
    ) -> None:
        """Each row's tokens, one row after another: the embedding of its last frame, then its text pair."""
        backbone = self.backbone
        ends = np.cumsum(counts)
        if any(frames):
            embedded = backbone.codebooks.embed_frames(self.codes[slots])
            if len(x) == len(slots):
                x.copy_(embedded)
            elif len(slots) == 1:
                x[:1].copy_(embedded)
            else:  # a first frame has none: what is written here is its pair's place
                x[self._index(ends - counts)] = embedded
        spoken = [step for step in steps if step is not None]
        if not spoken:
            return
        pairs = backbone.embed_pairs(spoken).flatten(0, 1)
        if len(slots) == 1:
            x[-2:].copy_(pairs)
        else:
            last = ends[[step is not None for step in steps]]
            x[self._index(np.stack([last - 2, last - 1], 1).ravel())] = pairs

    def _index(self, ids: np.ndarray) -> Tensor:
        return send(torch.from_numpy(ids), self.backbone.device)

    def commit(self, slots: list[int], codes: Tensor) -> np.ndarray:
        """Keep the codes int64 [rows, CODEBOOKS] for each slot's next step; int16 [rows, CODEBOOKS] for the host."""
        self.codes[slots] = codes
        return codes.to("cpu", torch.int16).numpy()
