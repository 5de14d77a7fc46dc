"""The depth decoder on a cluster of its own: one unary call per step of a Backbone, for its whole batch."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from chroma_models.checkpoint.fetch import resolve
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.engine.decoder_engine import DecoderBatch, DecoderEngine
from chroma_models.loading import load_decoder, set_threads
from chroma_models.sampling import RowSampling
from chroma_models.types import Sampling
from deployments.logs import expect_refusals, report
from deployments.metrics import StageMetrics
from deployments.settings import Models


class Decoder:
    """Stateless: any replica completes any batch."""

    async def __init__(self, models: Models) -> None:  # type: ignore[misc]
        expect_refusals()
        set_threads(models.torch)
        checkpoint = Checkpoint.open(resolve(models.checkpoint, report("decoder")))
        report("decoder")("loading weights")
        depth = load_decoder(checkpoint, models.torch, models.decoder)
        self._engine = DecoderEngine(depth)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoder-steps")
        hidden = torch.zeros((1, checkpoint.architecture.backbone.hidden), dtype=depth.dtype, device=depth.device)
        sampling = RowSampling.of([Sampling(seed=0, temperature=1.0)], [0], depth.device)
        code0 = torch.zeros(1, dtype=torch.int64, device=depth.device)
        await self.complete(DecoderBatch.pack(hidden, code0, sampling))
        report("decoder")("ready")
        self._metrics = StageMetrics(
            "decoder",
            steps=lambda: self._engine.batches,
            step_rows=lambda: self._engine.rows,
            step_seconds=lambda: self._engine.step_s,
        )

    async def complete(self, batch: DecoderBatch) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.complete, batch)

    async def state(self) -> dict[str, Any]:
        return self._metrics.state()
