"""Two places for the depth decoder behind one small interface: in this process, or wherever a batch is sent."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from chroma_models.decoder import DepthDecoder
from chroma_models.engine.cuda_graph import Progress
from chroma_models.engine.static_depth import StaticDepth
from chroma_models.engine.step_log import StepLog
from chroma_models.errors import InvalidRequest
from chroma_models.sampling import RowSampling
from chroma_models.types import CODEBOOKS

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FrameDecoder(Protocol):
    """Completes the frames of a whole batch. Called from the Backbone's engine thread, once per step."""

    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "Future[Tensor]":
        """hidden [rows, backbone hidden], code0 int64 [rows] -> int64 [rows, CODEBOOKS], on hidden's device."""
        ...


class FusedDecoder:
    """The decoder in the Backbone's own process, run in the Backbone's own thread: no hop at all."""

    def __init__(self, depth: DepthDecoder) -> None:
        self.depth = depth

    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "Future[Tensor]":
        future: Future[Tensor] = Future()
        try:
            future.set_result(self.depth.complete(hidden, code0, sampling))
        except Exception as error:  # delivered where the codes would have been
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class DecoderBatch:
    """A FrameDecoder call as it crosses between replicas: one message for all rows of a step."""

    rows: int
    dtype: str  # of hidden
    hidden: bytes  # [rows, backbone hidden]
    code0: bytes  # int16 [rows]
    temperature: bytes  # float32 [rows]
    top_k: bytes  # int64 [rows]
    seeds: bytes  # int64 [rows]
    indices: bytes  # int64 [rows]
    greedy: bool
    widest_k: int

    @classmethod
    def pack(cls, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "DecoderBatch":
        return cls(
            rows=hidden.shape[0],
            dtype=str(hidden.dtype).removeprefix("torch."),
            hidden=_bytes(hidden),
            code0=_bytes(code0.to(torch.int16)),
            temperature=_bytes(sampling.temperature),
            top_k=_bytes(sampling.top_k),
            seeds=_bytes(sampling.seeds),
            indices=_bytes(sampling.indices),
            greedy=sampling.greedy,
            widest_k=sampling.widest_k,
        )

    def unpack(self, device: torch.device) -> tuple[Tensor, Tensor, RowSampling]:
        hidden = _tensor(self.hidden, _DTYPES[self.dtype], device).view(self.rows, -1)
        sampling = RowSampling(
            temperature=_tensor(self.temperature, torch.float32, device),
            top_k=_tensor(self.top_k, torch.int64, device),
            seeds=_tensor(self.seeds, torch.int64, device),
            indices=_tensor(self.indices, torch.int64, device),
            greedy=self.greedy,
            widest_k=self.widest_k,
        )
        return hidden, _tensor(self.code0, torch.int16, device).long(), sampling


def _bytes(x: Tensor) -> bytes:
    x = x.detach().cpu()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().tobytes()


def _tensor(data: bytes, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype).to(device)


def unpack_codes(data: bytes, device: torch.device) -> Tensor:
    """What DecoderEngine.complete returned: int64 [rows, CODEBOOKS]."""
    return _tensor(data, torch.int16, device).long().view(-1, CODEBOOKS)


class DecoderEngine:
    """The stateless side of a split decoder. One batch at a time, on whatever thread calls it."""

    def __init__(self, decoder: DepthDecoder | StaticDepth) -> None:
        self._decoder = decoder
        self.ran = StepLog()

    def prepare(self, progress: Progress) -> None:
        """Capture the graphs there are to capture, on the thread that will call complete."""
        if isinstance(self._decoder, StaticDepth):
            self._decoder.prepare(progress)

    def complete(self, batch: DecoderBatch) -> bytes:
        """Codes int16 [rows, CODEBOOKS]. Raises InvalidRequest for code 0 outside the codebook."""
        started = time.perf_counter()
        hidden, code0, sampling = batch.unpack(self._decoder.device)
        if batch.rows and not 0 <= int(code0.min()) <= int(code0.max()) < self._decoder.codebook_size:
            raise InvalidRequest("Code 0 lies outside the codebook: Backbone and Decoder run different checkpoints.")
        codes = _bytes(self._decoder.complete(hidden, code0, sampling).to(torch.int16))
        self.ran.add(time.perf_counter() - started, batch.rows)
        return codes
