"""A running codec engine whose steps a test can hold up, and what it is compared with."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chroma_models.codec.engine import CodecEngine
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.codec.voice_encoder import VoiceEncoder
from chroma_models.config import CodecConfig
from chroma_models.engine.slots import Slot
from chroma_models.types import CODEBOOKS
from tests.chroma_models.codec.mimis import Mimi

CLOSE = 1e-4


class Gate:
    """Stands before a method that runs in a thread: holds it while closed, and lets one call fail."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.entered = threading.Event()
        self.failure: Exception | None = None
        self.calls: list[tuple[Any, ...]] = []
        self._inner = inner
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.entered.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self, *args: Any) -> Any:
        self.entered.set()
        assert self._open.wait(60)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        self.calls.append(args)
        return self._inner(*args)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 60)


class Service:
    """An engine whose decoder and encoder stand behind gates."""

    def __init__(self, mimi: Mimi, **settings: Any) -> None:
        self.mimi = mimi
        self.config = CodecConfig(**{"slots": 3, "admit_timeout_s": 30.0, "stall_timeout_s": 30.0, **settings})
        decoder: StreamDecoder = mimi.decoder(self.config.slots, self.config.max_group)
        encoder = VoiceEncoder(mimi.shape, mimi.weights.__getitem__, mimi.weights)
        self.decoder, self.encoder = decoder, encoder
        self.steps, self.encodes = Gate(decoder.step), Gate(encoder.encode)
        decoder.step = self.steps  # type: ignore[method-assign]
        encoder.encode = self.encodes  # type: ignore[method-assign]
        self.engine = CodecEngine(decoder, encoder, self.config)

    async def listen(self, slot: Slot, codes: Tensor, random: random.Random | None = None) -> Tensor:
        """Decode [frames, CODEBOOKS] in groups of 1 to max_group."""
        heard, at = [], 0
        while at < len(codes):
            group = random.randint(1, self.config.max_group) if random else self.config.max_group
            part = codes[at : at + group].numpy().astype(np.int16)
            heard.append(np.frombuffer(await self.engine.decode(slot, part), np.float32))
            at += len(part)
        return torch.from_numpy(np.concatenate(heard))

    async def hold_a_step(self, slot: Slot) -> "asyncio.Task[bytes]":
        """A decode of two frames that is in the step thread, behind its closed gate."""
        self.steps.close()
        task = asyncio.create_task(self.engine.decode(slot, frames(2)))
        await self.steps.reached()
        return task


@asynccontextmanager
async def running(mimi: Mimi, **settings: Any) -> AsyncIterator[Service]:
    service = Service(mimi, **settings)
    await service.engine.start()
    service.steps.calls.clear()  # the warm-up's
    try:
        yield service
    finally:
        service.steps.open()
        service.encodes.open()
        await service.engine.stop()


def frames(count: int, code: int = 1) -> np.ndarray:
    return np.full((count, CODEBOOKS), code, np.int16)


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
