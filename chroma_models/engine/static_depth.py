"""A split Decoder's frames in passes of fixed shapes, so that a batch's seven predictions are one CUDA graph."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from chroma_models.decoder import DepthDecoder
from chroma_models.engine.cuda_graph import Graphs, Progress, buckets, fitting
from chroma_models.engine.row_buffers import WIDEST_K, RowBuffers, widest
from chroma_models.sampling import RowSampling
from chroma_models.types import CODEBOOKS


class StaticDepth:
    """DepthDecoder.complete for batches of up to `rows` in one pass; larger ones go through in parts.

    A batch is copied to the first rows of fixed buffers. The rows after it, up to the bucket, complete whatever an
    earlier batch left there, and are thrown away: a row knows nothing of its neighbours.
    """

    def __init__(self, depth: DepthDecoder, rows: int) -> None:
        self.depth, self.rows = depth, rows
        self.device, self.codebook_size = depth.device, depth.codebook_size
        self.buckets = buckets(rows)
        self.graphs = Graphs("Decoder", depth.device)
        self._hidden = torch.zeros((rows, depth.projection.shape[0]), dtype=depth.dtype, device=depth.device)
        self._code0 = torch.zeros(rows, dtype=torch.int64, device=depth.device)
        self._sampling = RowBuffers(rows, depth.device)
        depth.reserve(rows)

    @torch.inference_mode()
    def prepare(self, progress: Progress) -> None:
        """Capture what ordinary batches need, the largest first, since they share memory; without CUDA, nothing.

        A pass that is missing, for a top-k above WIDEST_K say, is captured when it is first needed.
        """
        if self.device.type != "cuda":
            return
        shapes = [(rows, k) for rows in reversed(self.buckets) for k in (-1, WIDEST_K)]
        for made, (rows, k) in enumerate(shapes, 1):
            if self.graphs.get((rows, k), partial(self._pass, rows, k)) is None:
                return
            progress(made, len(shapes))

    @torch.inference_mode()
    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> Tensor:
        """As DepthDecoder's."""
        parts = []
        for begin in range(0, len(hidden), self.rows):
            part = slice(begin, begin + self.rows)
            parts.append(self._complete(hidden[part], code0[part], _part(sampling, part)))
        return parts[0] if len(parts) == 1 else torch.cat(parts or [code0.new_empty(0, CODEBOOKS)])

    def _complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> Tensor:
        count = len(hidden)
        rows, k = fitting(self.buckets, count), widest(sampling.greedy, sampling.widest_k, self.codebook_size)
        graph = self.graphs.get((rows, k), partial(self._pass, rows, k))
        if graph is None:
            return self.depth.complete(hidden, code0, sampling)
        self._hidden[:count].copy_(hidden)
        self._code0[:count].copy_(code0)
        self._sampling.begin_with(sampling)
        return graph()[:count].clone()  # the next batch of this shape takes the pass's memory

    def _pass(self, rows: int, widest_k: int) -> Tensor:
        """int64 [rows, CODEBOOKS] of what the buffers hold."""
        return self.depth.complete(self._hidden[:rows], self._code0[:rows], self._sampling.sampling(rows, widest_k))


def _part(sampling: RowSampling, rows: slice) -> RowSampling:
    temperature, top_k = sampling.temperature[rows], sampling.top_k[rows]
    return replace(
        sampling, temperature=temperature, top_k=top_k, seeds=sampling.seeds[rows], indices=sampling.indices[rows]
    )
