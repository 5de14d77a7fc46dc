"""The Decoder's own replica."""

import asyncio
import threading
from pathlib import Path

import pytest
import torch

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.config import BackboneSizes, DecoderConfig, TorchConfig
from chroma_models.engine.decoder_engine import DecoderBatch
from chroma_models.errors import StageUnavailable
from chroma_models.sampling import RowSampling
from chroma_models.types import Sampling
from deployments.decoder import Decoder
from deployments.settings import Models


async def test_a_batch_that_does_not_end_fails_the_check(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder.__new__(Decoder)
    await decoder.__init__(Models(checkpoint=str(tiny), torch=TorchConfig(device="cpu", threads=1)))  # type: ignore[misc]
    await decoder.reconfigure({"limits": {"stall_timeout_s": 0.05}})
    go_on = threading.Event()
    complete = decoder._engine.complete

    def stuck(batch: DecoderBatch) -> bytes:
        go_on.wait()
        return complete(batch)

    monkeypatch.setattr(decoder._engine, "complete", stuck)
    cpu = torch.device("cpu")
    hidden = torch.zeros((1, Architecture.read(tiny).backbone.hidden))
    sampling = RowSampling.of([Sampling(seed=0)], [0], cpu)
    call = asyncio.create_task(decoder.complete(DecoderBatch.pack(hidden, torch.zeros(1, dtype=torch.int64), sampling)))
    try:
        await asyncio.sleep(0.2)
        with pytest.raises(StageUnavailable):
            await decoder.check_health()
    finally:
        go_on.set()
        await call
    await decoder.check_health()
    decoder._metrics._task.cancel()


async def test_fixed_shapes_give_the_same_codes(tiny: Path) -> None:
    width = Architecture.read(tiny).backbone.hidden
    sampling = RowSampling.of([Sampling(seed=i, temperature=0.7) for i in range(5)], [3] * 5, torch.device("cpu"))
    hidden = torch.randn((5, width), generator=torch.Generator().manual_seed(0))
    batch = DecoderBatch.pack(hidden, torch.arange(5), sampling)
    answers = []
    for kind in ("eager", "static"):
        models = Models(
            checkpoint=str(tiny),
            torch=TorchConfig(device="cpu", threads=1),
            backbone=BackboneSizes(slots=3),  # fewer rows than the batch has: it goes through in parts
            decoder=DecoderConfig(step=kind),
        )
        decoder = Decoder.__new__(Decoder)
        await decoder.__init__(models)  # type: ignore[misc]
        answers.append(await decoder.complete(batch))
        decoder._metrics._task.cancel()
    assert answers[0] == answers[1]
