"""Stages without a model. They stream, watch, count and cancel as the real ones do, and note how old each item is.

The clock is time.monotonic(), which the processes of one machine share.
"""

import asyncio
import contextvars
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
import torch
from ray.serve.handle import DeploymentHandle

from chroma_models.engine.decoder_engine import DecoderBatch
from chroma_models.sampling import RowSampling
from chroma_models.stages.streams import lively
from chroma_models.types import CODEBOOKS, Frame, Sampling, TextStep
from deployments.garbage import settle
from deployments.handles import streamed, streaming
from deployments.metrics import StageMetrics

HIDDEN = 2048
ROW = bytes(2 * HIDDEN)  # one bf16 row: an item is 4 KB and a little
CODES = bytes(2 * CODEBOOKS)
STALL_S = 30.0
UNARY_CALLS = 200


class Stage:
    """Ages of what arrived since the last look, and the CPU this process has used."""

    def __init__(self) -> None:
        self._ages: list[float] = []
        settle()

    async def look(self) -> dict[str, Any]:
        ages, self._ages = self._ages, []
        return {"pid": os.getpid(), "cpu_s": time.process_time(), "items": len(ages), "age_ms": _quantiles(ages)}

    def _arrived(self, items: list[Frame]) -> None:
        step = items[0].step
        assert step is not None
        self._ages.append(1000 * (time.monotonic() - float(step.text)))


class Source(Stage):
    """Where the Reasoner would be: one list of one frame per tick, stamped with the time it left."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics = StageMetrics("bench-source", "split")

    async def frames(self, seconds: float, rate_hz: float) -> AsyncGenerator[list[Frame], None]:
        async for items in self._metrics.turn(self._made(seconds, rate_hz)):
            yield items

    async def _made(self, seconds: float, rate_hz: float) -> AsyncGenerator[list[Frame], None]:
        began = time.monotonic()
        for index in range(int(seconds * rate_hz)):
            await asyncio.sleep(began + index / rate_hz - time.monotonic())
            yield [Frame(index, CODES, TextStep(index, 0, ROW, repr(time.monotonic())))]

    async def complete(self, batch: DecoderBatch) -> bytes:
        """Where the Decoder would be."""
        return CODES * batch.rows


class Relay(Stage):
    """Where the Backbone and the Codec would be."""

    def __init__(self, upstream: DeploymentHandle) -> None:
        super().__init__()
        self._upstream = streaming(upstream)
        self._metrics = StageMetrics("bench-relay", "split")

    async def frames(self, seconds: float, rate_hz: float) -> AsyncGenerator[list[Frame], None]:
        async for items in self._metrics.turn(self._passed(seconds, rate_hz)):
            yield items

    async def _passed(self, seconds: float, rate_hz: float) -> AsyncGenerator[list[Frame], None]:
        stream = streamed(lambda: self._upstream.frames.remote(seconds, rate_hz), "Relay")
        async with aclosing(lively(stream, "Relay", STALL_S)) as items:
            async for item in items:
                self._arrived(item)
                yield item


class Sink(Stage):
    """Where the ingress would be: opens the streams, each in a task without a Serve parent."""

    def __init__(self, upstream: DeploymentHandle, source: DeploymentHandle) -> None:
        super().__init__()
        self._upstream, self._source = streaming(upstream), source

    async def listen(self, streams: int, seconds: float, rate_hz: float) -> int:
        """Items heard on all streams, which start evenly spread over one tick."""
        heard = [
            asyncio.create_task(self._hear(i / streams / rate_hz, seconds, rate_hz), context=contextvars.Context())
            for i in range(streams)
        ]
        return sum(await asyncio.gather(*heard))

    async def _hear(self, late_s: float, seconds: float, rate_hz: float) -> int:
        await asyncio.sleep(late_s)
        count = 0
        stream = streamed(lambda: self._upstream.frames.remote(seconds, rate_hz), "Relay")
        async with aclosing(stream) as items:
            async for item in items:
                self._arrived(item)
                count += 1
        return count

    async def unary(self, rows: int) -> dict[str, float]:
        """Milliseconds of the Backbone's call for a whole batch, one after another, packing and all."""
        hidden = torch.zeros((rows, HIDDEN), dtype=torch.bfloat16)
        code0 = torch.zeros(rows, dtype=torch.int64)
        sampling = RowSampling.of([Sampling(0)] * rows, [0] * rows, hidden.device)
        times = []
        for _ in range(UNARY_CALLS):
            started = time.monotonic()
            await self._source.complete.remote(DecoderBatch.pack(hidden, code0, sampling))
            times.append(1000 * (time.monotonic() - started))
        return _quantiles(times)


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(values), 3)}
