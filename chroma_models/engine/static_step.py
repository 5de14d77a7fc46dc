"""The step loop with nothing left to decide: fixed shapes, fixed memory, so that a whole step is one CUDA graph.

Row r of a pass is slot r, for the smallest bucket that covers every slot in use, so that attention reads the cache in
place. Rows that do not step write to a scratch slot and are thrown away. What differs from step to step is a few
integers and the text rows, copied in before the pass. Without CUDA the same pass runs as ordinary calls.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chroma_models.backbone import Backbone
from chroma_models.decoder import DepthDecoder
from chroma_models.engine.cuda_graph import Graph, buckets, fitting, graph_pool, wants_static
from chroma_models.engine.decoder_engine import FrameDecoder, FusedDecoder
from chroma_models.engine.kv_cache import Lane
from chroma_models.engine.row_buffers import WIDEST_K, widest
from chroma_models.engine.step import FrameStep
from chroma_models.engine.step_inputs import StepInputs
from chroma_models.interleave import segment_positions
from chroma_models.sampling import RowSampling, choose
from chroma_models.tokens import Tokens
from chroma_models.transfer import send
from chroma_models.types import CODEBOOKS, Sampling, TextStep

LENGTHS = (256, 512, 1024, 2048)  # keys a pass reads; the last stands for all positions. Kernels read what there is
COPIES = 4  # frames on their way to the host at once, at most
LONGEST_SEGMENT = segment_positions(1, pair=True)


@dataclass(frozen=True)
class _Copy:
    """A frame's codes, int16 [rows, CODEBOOKS] of a whole pass on the host once the event has happened."""

    codes: Tensor  # int64 [rows that step, CODEBOOKS], on the device: what propose returned
    host: Tensor
    event: "torch.cuda.Event"


class StaticFrame:
    """One pass for a bucket of rows, each of up to n positions, over `length` keys."""

    def __init__(self, step: "StaticStep", rows: int, n: int, length: int, widest_k: int) -> None:
        backbone = step.backbone
        self._step, self._rows, self._n, self._length = step, rows, n, length
        self.lane = Lane(step.cache, backbone.stack, step.tokens.first(rows * n), rows, n, own_slots=True)
        self._sampling = step.inputs.sampling(rows, widest_k)
        self._leave_alone()
        self.graph = Graph(self._pass, backbone.device, step.pool)

    def _leave_alone(self) -> None:
        """A capture begins with runs of the pass, with turns under way perhaps: they must write to the scratch slot."""
        step, count = self._step, self._rows * self._n
        step.inputs.clear()  # sources of a larger pass would read past the end of this one's rows
        scratch = np.full(count, step.cache.scratch * step.cache.positions, np.int64)
        self.lane.place(np.zeros(count, np.int64), scratch, np.arange(self._rows) * self._n)

    def _pass(self) -> Tensor:
        """Embeddings, backbone, code 0 and, where the decoder is in this process, the rest of the frame.

        returns int64 [rows, CODEBOOKS]; in the split placement float [rows, hidden] is left in step.hidden, and only
        column 0 is filled
        """
        step, rows, n = self._step, self._rows, self._n
        backbone, inputs = step.backbone, step.inputs
        x = backbone.codebooks.embed_frames(step.codes[:rows])
        if n > 1:
            words = backbone.text_table.index_select(0, inputs.words[:rows])
            x = torch.cat([x, torch.stack([step.text[:rows], words], 1).flatten(0, 1)])
            x = x.index_select(0, inputs.sources[: rows * n])
        self.lane.x.copy_(x)
        hidden = self.lane.pass_through([(0, rows, 0)], self._length)
        noise = self._sampling.noise(step.book0, backbone.architecture.codebook_size)
        code0 = choose(backbone.logits(hidden), self._sampling, None if noise is None else noise[:, 0])
        if step.depth is None:
            step.hidden[:rows].copy_(hidden)
            return code0[:, None].expand(rows, CODEBOOKS).contiguous()
        codes = step.depth.complete(hidden, code0, self._sampling).contiguous()
        stepping = inputs.stepping[:rows, None].bool()
        step.codes[:rows].copy_(torch.where(stepping, codes, step.codes[:rows]))
        step.narrow[:rows].copy_(codes)
        return codes


class StaticStep(FrameStep):
    """FrameStep whose passes are StaticFrames, made (and on CUDA captured) for each shape once.

    depth  the decoder, where it runs in this process (fused); None where `decoder` is asked for the rest of a frame
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: FrameDecoder,
        slots: int,
        depth: DepthDecoder | None,
    ) -> None:
        super().__init__(backbone, decoder, slots, scratch=1)
        self.depth = depth
        device = backbone.device
        self.buckets = buckets(slots)
        lengths = () if backbone.stack.kernels is not None else LENGTHS
        self.lengths = sorted({min(length, self.cache.positions) for length in lengths} | {self.cache.positions})
        self.inputs = StepInputs(slots, LONGEST_SEGMENT, device)
        self.tokens = Tokens(backbone.stack, slots * LONGEST_SEGMENT)
        self.book0 = torch.zeros(1, dtype=torch.int64, device=device)
        self.hidden = torch.zeros((slots, backbone.hidden), dtype=backbone.dtype, device=device)
        self.text = torch.zeros((slots, backbone.hidden), dtype=backbone.dtype, device=device)
        self.narrow = torch.zeros((slots, CODEBOOKS), dtype=torch.int16, device=device)  # the last pass's codes
        self.pool = graph_pool(device)
        if depth is not None:
            depth.reserve(slots)
        self._copies: deque[_Copy] = deque(maxlen=COPIES)  # on their way to the host
        self._landings = self._make_landings(slots) if device.type == "cuda" else []
        self._landed = 0
        self._frames: dict[tuple[int, int, int, int], StaticFrame] = {}

    def _make_landings(self, slots: int) -> "list[tuple[Tensor, torch.cuda.Event]]":
        """Where frames land on the host, in turns, and the events that tell of it."""
        hosts = [torch.zeros((slots, CODEBOOKS), dtype=torch.int16, pin_memory=True) for _ in range(COPIES)]
        return [(host, torch.cuda.Event()) for host in hosts]  # type: ignore[no-untyped-call]

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Capture every graph that ordinary turns need; without CUDA there is none."""
        if self.backbone.device.type == "cuda":
            self.capture(progress)

    @torch.inference_mode()
    def capture(self, progress: Callable[[int, int], None], top_k: Sequence[int] = (-1, WIDEST_K)) -> None:
        """Make every pass that ordinary turns need; progress is told (made, of how many). Largest first: they share
        memory. A pass that is missing, for a top-k above WIDEST_K say, is made when it is first needed."""
        shapes = [
            (rows, n, length, k)
            for rows in reversed(self.buckets)
            for n in (1, LONGEST_SEGMENT)
            for length in reversed(self.lengths)
            for k in top_k
        ]
        for made, shape in enumerate(shapes, 1):
            self._frame(*shape)
            progress(made, len(shapes))

    def _frame(self, rows: int, n: int, length: int, widest_k: int) -> StaticFrame:
        key = (rows, n, length, widest_k)
        if key not in self._frames:
            self._frames[key] = StaticFrame(self, *key)
        return self._frames[key]

    @torch.inference_mode()
    def propose(
        self,
        slots: list[int],
        positions: list[int],
        frames: list[int],
        steps: Sequence[TextStep | None],
        sampling: Sequence[Sampling],
    ) -> "Future[Tensor]":
        """As FrameStep's."""
        device = self.backbone.device
        counts = [segment_positions(frame, step is not None) for frame, step in zip(frames, steps, strict=True)]
        n = 1 if max(counts) == 1 else LONGEST_SEGMENT
        rows = fitting(self.buckets, slots[-1] + 1)
        length = fitting(self.lengths, min(max(positions) + n, self.lengths[-1]))
        greedy, widest_k = all(s.temperature == 0 for s in sampling), max(s.top_k for s in sampling)
        frame = self._frame(rows, n, length, widest(greedy, widest_k, self.backbone.architecture.codebook_size))
        own = np.array(slots)
        self.inputs.writable()
        self.inputs.fill(own, sampling, frames)
        self._copy_in(frame, rows, n, own, positions, frames, counts, steps)
        codes = frame.graph()
        whole = len(slots) == rows  # ascending and distinct: all of them
        index = None if whole else send(torch.tensor(slots), device)
        # The next pass of this shape takes the memory of this one's codes.
        codes = codes.clone() if index is None else codes.index_select(0, index)
        if self.depth is None:
            hidden = self.hidden[:rows].clone() if index is None else self.hidden.index_select(0, index)
            return self.decoder.complete(hidden, codes[:, 0], RowSampling.of(sampling, frames, device))
        future: Future[Tensor] = Future()
        future.set_result(codes)
        self._start_copy(codes, rows)
        return future

    def _start_copy(self, codes: Tensor, rows: int) -> None:
        """Begin to bring a frame to the host; commit waits for this alone, not for what was launched since."""
        if codes.device.type == "cuda":
            host, event = self._landings[self._landed % len(self._landings)]
            self._landed += 1
            host = host[:rows]
            host.copy_(self.narrow[:rows], non_blocking=True)
            event.record()
            self._copies.append(_Copy(codes, host, event))

    def commit(self, slots: list[int], codes: Tensor) -> np.ndarray:
        """As FrameStep's. Where the decoder is in this process the pass has kept the codes already."""
        if self.depth is None:
            return super().commit(slots, codes)
        for _ in range(len(self._copies)):
            copy = self._copies.popleft()
            if copy.codes is codes:
                copy.event.synchronize()
                return copy.host.numpy()[slots]
        return codes.to("cpu", torch.int16).numpy()

    def _copy_in(
        self,
        frame: StaticFrame,
        rows: int,
        n: int,
        own: np.ndarray,
        positions: list[int],
        frames: list[int],
        counts: list[int],
        steps: Sequence[TextStep | None],
    ) -> None:
        """All that this step's pass reads and that the last one's did not; own: the slots that step."""
        room = self.cache.positions
        at = np.zeros((rows, n), np.int64)
        cells = np.full((rows, n), self.cache.scratch * room, np.int64)
        at[own] = np.array(positions)[:, None] + np.arange(n)
        cells[own] = at[own] + own[:, None] * room
        last = np.arange(rows) * n
        last[own] += np.array(counts) - 1
        frame.lane.place(at.ravel(), cells.ravel(), last)
        inputs = self.inputs
        if n > 1:
            sources = inputs.source_array[: rows * n].reshape(rows, n)
            sources[:] = np.arange(rows)[:, None]
            spoken: list[TextStep] = []
            for slot, begin, step in zip(own.tolist(), frames, steps, strict=True):
                if step is not None:
                    pair = rows + 2 * len(spoken)
                    sources[slot] = (slot, pair, pair + 1) if begin else (pair, pair + 1, pair + 1)
                    spoken.append(step)
            if spoken:
                inputs.word_array[: len(spoken)] = [step.token for step in spoken]
                self.text[: len(spoken)].copy_(self.backbone.text_rows(spoken))
        inputs.send()


def make_step(
    backbone: Backbone, decoder: FrameDecoder, slots: int, kind: Literal["auto", "eager", "static"]
) -> FrameStep:
    """As wants_static says."""
    if not wants_static(kind, backbone.device):
        return FrameStep(backbone, decoder, slots)
    return StaticStep(backbone, decoder, slots, decoder.depth if isinstance(decoder, FusedDecoder) else None)
