"""Deep health: a step loop that hangs is told apart from one that has nothing to do."""

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import BackboneConfig, DecoderConfig, TorchConfig
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.decoder_engine import FusedDecoder
from chroma_models.engine.warm_up import warm_up
from chroma_models.errors import StageUnavailable
from chroma_models.loading import load_backbone, load_decoder

FP32 = TorchConfig(device="cpu", dtype="float32")


class Hanging(FusedDecoder):
    """A decoder that can be made to hang, as a lost device does."""

    def __init__(self, decoder: FusedDecoder) -> None:
        self.inner = decoder
        self.go = threading.Event()
        self.go.set()

    def complete(self, *arguments: object) -> "Future[Tensor]":
        self.go.wait()
        return self.inner.complete(*arguments)  # type: ignore[arg-type]


async def test_a_stalled_step_loop_fails_its_check_and_an_idle_one_does_not(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    decoder = Hanging(FusedDecoder(load_decoder(checkpoint, FP32, DecoderConfig())))
    config = BackboneConfig(slots=2, stall_timeout_s=0.3)
    engine = BackboneEngine(load_backbone(checkpoint, FP32), decoder, config, fused=True)
    with pytest.raises(StageUnavailable):
        engine.check()  # not started
    await engine.start()
    await warm_up(engine)
    await asyncio.sleep(0.5)
    engine.check()  # idle for longer than the limit, and healthy
    decoder.go.clear()
    stalled = asyncio.create_task(warm_up(engine))
    await asyncio.sleep(0.8)
    with pytest.raises(StageUnavailable, match="stalled"):
        engine.check()
    decoder.go.set()
    await stalled
    engine.check()
    await engine.stop()
    with pytest.raises(StageUnavailable):
        engine.check()
