"""The depth decoder on a cluster of its own: one unary call per step of a Backbone, for its whole batch."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from chroma_models.checkpoint.fetch import resolve
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import TurnLimits
from chroma_models.engine.cuda_graph import announce, wants_static
from chroma_models.engine.decoder_engine import DecoderBatch, DecoderEngine
from chroma_models.engine.static_depth import StaticDepth
from chroma_models.errors import StageUnavailable
from chroma_models.loading import load_decoder, set_threads
from chroma_models.sampling import RowSampling
from chroma_models.types import FRAMES_PER_S, Sampling
from deployments.autoscaling.feelings import Feelings
from deployments.garbage import settle
from deployments.logs import configure, expect_refusals, loading, report
from deployments.metrics import StageMetrics
from deployments.settings import Models
from deployments.traces import decoding, export_traces


class Decoder:
    """Stateless: any replica completes any batch."""

    async def __init__(self, models: Models) -> None:  # type: ignore[misc]
        self._limits = TurnLimits()
        self._busy_since: float | None = None  # when the batch at work began
        expect_refusals()
        set_threads(models.torch)
        configure(models.logs, "decoder")
        export_traces(models.traces, "decoder")
        checkpoint = Checkpoint.open(resolve(models.checkpoint, report("decoder")))
        with loading(report("decoder"), checkpoint):
            depth = load_decoder(checkpoint, models.torch, models.decoder)
        rows = models.backbone.slots + models.backbone.reserved_slots  # the largest batch of a Backbone
        static = wants_static(models.decoder.step, depth.device)
        self._engine = DecoderEngine(StaticDepth(depth, rows) if static else depth)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoder-steps")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.prepare, announce("decoder"))
        hidden = torch.zeros((1, checkpoint.architecture.backbone.hidden), dtype=depth.dtype, device=depth.device)
        sampling = RowSampling.of([Sampling(seed=0, temperature=1.0)], [0], depth.device)
        code0 = torch.zeros(1, dtype=torch.int64, device=depth.device)
        await self.complete(DecoderBatch.pack(hidden, code0, sampling))
        ran = self._engine.ran
        self._feelings = Feelings(0, lambda: 0, busy_s=lambda: ran.busy_s)
        self._metrics = StageMetrics("decoder", models.placement, None, ran, lambda: ran.rows / FRAMES_PER_S)
        settle()
        report("decoder")("ready")

    async def complete(self, batch: DecoderBatch, traces: tuple[str, ...] = ()) -> bytes:
        """traces: of turns whose first frame this batch makes."""
        with decoding(traces, batch.rows):
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._complete, batch)

    def _complete(self, batch: DecoderBatch) -> bytes:
        self._busy_since = time.monotonic()
        try:
            return self._engine.complete(batch)
        finally:
            self._busy_since = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._limits = TurnLimits(**user_config.get("limits", {}))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler, which Serve asks on its behalf."""
        return self._feelings.told()

    async def check_health(self) -> None:
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._limits.stall_timeout_s:
            raise StageUnavailable("The Decoder's batch does not end.", 1.0)

    async def state(self) -> dict[str, Any]:
        return self._metrics.state()
