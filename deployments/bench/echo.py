"""The ingress alone, in a process of its own: real doors and sessions, and a speaker that answers at once, in pace."""

import asyncio
import json
import os
import signal
import struct
import time
from collections.abc import AsyncGenerator
from functools import cache
from pathlib import Path

from ray._private.async_compat import get_new_event_loop

from chroma_models.types import (
    CODEBOOKS,
    FRAME_SAMPLES,
    FRAMES_PER_S,
    Admitted,
    AudioChunk,
    Finished,
    Frame,
    Progress,
    Sampling,
    TextStep,
    Turn,
    Usage,
)
from deployments.garbage import settle
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.doors import Doors
from deployments.ingress.speaker import Item

CODES = bytes(2 * CODEBOOKS)
STAMP_SAMPLES = 4  # int16 samples that hold a time in ns


def serve(out: Path, list_frames: int, database: str | None) -> None:
    """Write {"http", "grpc", "pid"} to out once calls are accepted; end at SIGTERM. In the event loop of a replica.

    database: whose API keys callers need; None: anybody may call.
    """
    with asyncio.Runner(loop_factory=get_new_event_loop) as runner:
        runner.run(_serve(out, list_frames, database))


async def _serve(out: Path, list_frames: int, database: str | None) -> None:
    quick = {"http_port": 0, "grpc_port": 0, "drain_linger_s": 0.0, "drain_wait_s": 0.0, "max_concurrent": 4096}
    config = IngressConfig.model_validate({"auth": database is not None, "database_url": database, **quick})
    app = IngressApp(Echo(list_frames), config, Sampling(seed=0))
    doors = Doors(app, config)
    await doors.start()
    await app.services.vad.warm()
    settle()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    told = {"http": doors.port, "grpc": doors.grpc_port, "pid": os.getpid()}
    part = out.with_suffix(".part")
    part.write_text(json.dumps(told), encoding="utf-8")
    part.rename(out)
    await ended.wait()
    await doors.drain()


class Echo:
    """Speaks max_reply_s of each turn at the pace of speech, in lists of frames; a list begins with the time at which
    it was made."""

    def __init__(self, list_frames: int) -> None:
        self._list_frames = list_frames

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Item, None]:
        yield Admitted("echo")
        began = time.monotonic()
        frames = turn.limits.max_frames
        for first in range(0, frames, self._list_frames):
            await asyncio.sleep(began + first / FRAMES_PER_S - time.monotonic())
            numbers = range(first, min(first + self._list_frames, frames))
            yield AudioChunk(tuple(map(_frame, numbers)), stamped(len(numbers)))
        await asyncio.sleep(began + frames / FRAMES_PER_S - time.monotonic())
        yield Finished("max_reply", Usage(frames=frames), {})

    async def encode_voice(self, pcm: bytes) -> bytes:
        return CODES * max(1, len(pcm) // 4 // FRAME_SAMPLES)


@cache  # what is measured is the ingress, not this
def _frame(index: int) -> Frame:
    return Frame(index, CODES, TextStep(index // 2, 0, b"", " word") if index % 2 == 0 else None)


@cache
def _silence(frames: int) -> bytes:
    return bytes(4 * frames * FRAME_SAMPLES)


def stamped(frames: int) -> bytes:
    """Frames of float32 samples. As int16 the first STAMP_SAMPLES are the nanoseconds of the machine's clock."""
    steps = struct.unpack("<4h", struct.pack("<q", time.monotonic_ns()))
    return struct.pack("<4f", *(step / 32768 for step in steps)) + _silence(frames)[4 * STAMP_SAMPLES :]
