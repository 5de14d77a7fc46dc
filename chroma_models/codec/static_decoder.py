"""Mimi's step in passes of fixed shapes, so that a batch's frames are one CUDA graph.

Which slots step, and where in their rings they are, is read on the device: rows gather what their slots remember and
put it back. Rows up to the bucket that no stream fills belong to a scratch slot and are thrown away. Without CUDA the
same pass runs as ordinary calls.
"""

from functools import partial

import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.engine.cuda_graph import Graph, Graphs, Progress, buckets, fitting
from chroma_models.layers import TensorSource
from chroma_models.transfer import send
from chroma_models.types import CODEBOOKS


class StaticDecoder(StreamDecoder):
    """StreamDecoder whose steps are passes, one for each bucket of rows and group of frames.

    The host counts positions, as for ordinary steps: a slot may be reset, restored and stepped either way.
    """

    def __init__(self, shape: CodecShape, get: TensorSource, slots: int, max_group: int = 4) -> None:
        super().__init__(shape, get, slots, max_group, scratch=1)
        self.buckets = buckets(slots)
        self.graphs = Graphs("Codec", self.device)
        self._held: dict[tuple[int, int], list[Tensor]] = {}  # buffers that each pass was captured on
        self._codes = torch.zeros(slots * max_group * CODEBOOKS, dtype=torch.int64, device=self.device)
        # Slot and first position of each row, bucket by bucket: each pass reads one contiguous copy.
        self._places = torch.zeros(2 * slots, dtype=torch.int64, device=self.device)

    @torch.inference_mode()
    def warm_up(self, progress: Progress) -> None:
        """Capture every pass, the largest first, since they share memory; then step as StreamDecoder does.

        Call it before the first step, with no other work on the device.
        """
        if self.device.type == "cuda":
            shapes = [(rows, group) for rows in reversed(self.buckets) for group in range(self.max_group, 0, -1)]
            for made, (rows, group) in enumerate(shapes, 1):
                if self._graph(rows, group) is None:
                    break
                progress(made, len(shapes))
        super().warm_up(progress)

    @torch.inference_mode()
    def step(self, slots: list[int], codes: Tensor) -> Tensor:
        """As StreamDecoder's."""
        count, group = codes.shape[:2]
        self._check_group(group)
        rows = fitting(self.buckets, count)
        graph = self._graph(rows, group)
        if graph is None:
            return super().step(slots, codes)
        self._fill(rows, slots, codes)
        samples = graph()[:count].clone()  # the next step of this shape takes the pass's memory
        for slot in slots:
            self.state.positions[slot] += group * self.positions_per_frame
        return samples

    def _graph(self, rows: int, group: int) -> Graph | None:
        if (rows, group) not in self._held and not self.graphs.failed:
            # A capture begins with runs of the pass: they must advance no stream.
            self._fill(rows, [], torch.zeros((0, group, CODEBOOKS), dtype=torch.int64, device=self.device))
        graph = self.graphs.get((rows, group), partial(self._pass, rows, group))
        if graph is None:
            self._held.clear()
        return graph

    def _fill(self, rows: int, slots: list[int], codes: Tensor) -> None:
        """Everything that a pass reads and the last one did not. Codes of the rows that stay over are old ones."""
        over = rows - len(slots)
        first = [self.state.positions[slot] for slot in slots]
        places = torch.tensor([*slots, *[self.slots] * over, *first, *[0] * over])
        self._places[: 2 * rows].copy_(send(places, self.device))
        self._codes[: codes.numel()].copy_(codes.reshape(-1))

    def _pass(self, rows: int, group: int) -> Tensor:
        """float32 [rows, group * FRAME_SAMPLES] of what the buffers hold."""
        slots, first = self._places[: 2 * rows].view(2, rows)
        codes = self._codes[: rows * group * CODEBOOKS].view(rows, group, CODEBOOKS)
        x = self._stretched(self.state, slots, codes)
        x = self._transformer.step_at(self.state, slots, first, x)
        samples = self._convolved(self.state, slots, x)
        # Should a later pass want more scratch than there is, these stay where this one's graph has them.
        self._held[rows, group] = self.state.buffers()
        return samples
