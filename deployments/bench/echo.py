"""The ingress alone, in a process of its own: real doors and sessions, and a speaker that answers at once, in pace."""

import asyncio
import json
import os
import signal
import struct
import time
from collections.abc import AsyncGenerator
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
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.doors import Doors
from deployments.ingress.speaker import Item

CODES = bytes(2 * CODEBOOKS)
STAMP_SAMPLES = 4  # int16 samples that hold a time in ns
SILENCE = bytes(4 * (FRAME_SAMPLES - STAMP_SAMPLES))


def serve(out: Path) -> None:
    """Write {"http", "grpc", "pid"} to out once calls are accepted; end at SIGTERM. In the event loop of a replica."""
    with asyncio.Runner(loop_factory=get_new_event_loop) as runner:
        runner.run(_serve(out))


async def _serve(out: Path) -> None:
    config = IngressConfig(http_port=0, grpc_port=0, drain_linger_s=0.0, drain_wait_s=0.0, max_concurrent=4096)
    app = IngressApp(Echo(), config, Sampling(seed=0))
    doors = Doors(app, config)
    await doors.start()
    await app.services.vad.warm()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    told = {"http": doors.port, "grpc": doors.grpc_port, "pid": os.getpid()}
    part = out.with_suffix(".part")
    part.write_text(json.dumps(told), encoding="utf-8")
    part.rename(out)
    await ended.wait()
    await doors.drain()


class Echo:
    """Speaks max_reply_s of each turn, a frame every 80 ms; each begins with the time at which it was made."""

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Item, None]:
        yield Admitted("echo")
        began = time.monotonic()
        frames = turn.limits.max_frames
        for index in range(frames):
            await asyncio.sleep(began + index / FRAMES_PER_S - time.monotonic())
            step = TextStep(index // 2, 0, b"", " word") if index % 2 == 0 else None
            yield AudioChunk((Frame(index, CODES, step),), stamped())
        yield Finished("max_reply", Usage(frames=frames), {})

    async def encode_voice(self, pcm: bytes) -> bytes:
        return CODES * max(1, len(pcm) // 4 // FRAME_SAMPLES)


def stamped() -> bytes:
    """A frame of float32 samples. As int16 its first STAMP_SAMPLES are the nanoseconds of the machine's clock."""
    steps = struct.unpack("<4h", struct.pack("<q", time.monotonic_ns()))
    return struct.pack("<4f", *(step / 32768 for step in steps)) + SILENCE
