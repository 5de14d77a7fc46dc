"""Serve's own Ingress, several replicas of it, before a Codec that speaks at the pace of speech and has no graph."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np

from chroma_models.types import (
    CODEBOOKS,
    FRAME_SAMPLES,
    FRAMES_PER_S,
    Admitted,
    AudioChunk,
    Finished,
    Frame,
    Progress,
    TextStep,
    Turn,
    Usage,
)


class PacedCodec:
    """A word and a frame every 80 ms, for as long as the turn allows."""

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        yield Admitted("paced")
        loop = asyncio.get_running_loop()
        began = loop.time()
        for index in range(turn.limits.max_frames):
            if turn.pace == "realtime":
                await asyncio.sleep(began + index / FRAMES_PER_S - loop.time())
            frame = Frame(index, bytes(2 * CODEBOOKS), TextStep(index, 0, b"", " word"))
            yield AudioChunk((frame,), np.full(FRAME_SAMPLES, 0.25, "<f4").tobytes())
        yield Finished("max_reply", Usage(frames=turn.limits.max_frames), {})

    async def encode_voice(self, pcm: bytes) -> bytes:
        return bytes(2 * CODEBOOKS * max(1, len(pcm) // 4 // FRAME_SAMPLES))

    async def state(self) -> dict[str, Any]:
        return {}


def run(name: str, checkpoint: Path, replicas: int, **ingress: Any) -> None:
    """Deploys, or updates what runs; returns when the new replicas are ready."""
    from ray import serve

    from deployments.app import deployment_options
    from deployments.cluster import QUIET
    from deployments.ingress_stage import Ingress
    from deployments.settings import Settings

    tree = {"checkpoint": str(checkpoint), "ingress": ingress}
    settings = Settings.load(None, models=tree, scale={"ingress": {"replicas": replicas, "max_ongoing_requests": 1000}})
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    codec = serve.deployment(
        PacedCodec, name="Codec", max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0}
    ).bind()
    options = deployment_options(settings.scale.ingress)
    doors = serve.deployment(Ingress, name="Ingress", **options).bind(settings.models, codec)
    serve.run(doors, name=name, route_prefix=None, logging_config=QUIET)
