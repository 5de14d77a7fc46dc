"""Engines over a checkpoint, running for the length of a test."""

from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import BackboneConfig, DecoderConfig, TorchConfig
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.decoder_engine import DecoderBatch, DecoderEngine, FrameDecoder, FusedDecoder, unpack_codes
from chroma_models.loading import load_backbone, load_decoder
from chroma_models.sampling import RowSampling

FP32 = TorchConfig(device="cpu", dtype="float32")


class ThreadedDecoder:
    """A split decoder without a cluster: packed batches, another thread, codes as bytes."""

    def __init__(self, engine: DecoderEngine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(1)

    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "Future[Tensor]":
        batch = DecoderBatch.pack(hidden, code0, sampling)
        return self._pool.submit(lambda: unpack_codes(self._engine.complete(batch), hidden.device))


@asynccontextmanager
async def running(checkpoint: Checkpoint, *, split: bool = False, **config: object) -> AsyncIterator[BackboneEngine]:
    depth = load_decoder(checkpoint, FP32, DecoderConfig())
    decoder: FrameDecoder = ThreadedDecoder(DecoderEngine(depth)) if split else FusedDecoder(depth)
    settings = BackboneConfig.model_validate({"slots": 5, "min_split_rows": 2, "prefill_chunk": 5, **config})
    engine = BackboneEngine(load_backbone(checkpoint, FP32), decoder, settings, fused=not split)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
