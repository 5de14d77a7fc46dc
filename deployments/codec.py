"""The Codec on a cluster: frames in, speech out; and reference clips to codes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from chroma_models.checkpoint.fetch import resolve
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.codec.engine import CodecEngine
from chroma_models.config import CodecConfig, TurnLimits
from chroma_models.loading import load_codec, set_threads
from chroma_models.stages.codec import CodecStage, SpeechItem
from chroma_models.types import FRAMES_PER_S, Progress, Turn
from deployments.autoscaling.feelings import Feelings
from deployments.garbage import settle
from deployments.handles import RemoteBackbone, answering
from deployments.logs import configure, expect_refusals, loading, report
from deployments.metrics import Slots, StageMetrics
from deployments.settings import Models
from deployments.traces import export_traces, staged


class Codec:
    """Ready once a frame of every group size has been decoded and a clip encoded."""

    async def __init__(self, models: Models, backbone: DeploymentHandle) -> None:  # type: ignore[misc]
        self._sizes = models.codec
        expect_refusals()
        set_threads(models.torch)
        configure(models.logs, "codec")
        export_traces(models.traces, "codec")
        checkpoint = Checkpoint.open(resolve(models.checkpoint, report("codec")))
        config = CodecConfig(**models.codec.model_dump())
        with loading(report("codec"), checkpoint):
            engine: CodecEngine = load_codec(checkpoint, models.torch, config)
        await engine.start()
        await answering(backbone, "Backbone")
        self._stage = CodecStage(engine, RemoteBackbone(backbone), checkpoint.digest)
        self._feelings = Feelings(
            models.codec.slots, lambda: engine.slots_held, busy_s=lambda: engine.thread.ran.busy_s
        )
        self._metrics = StageMetrics(
            "codec",
            models.placement,
            Slots(lambda: engine.slots_held, lambda: models.codec.slots),
            engine.thread.ran,
            lambda: engine.thread.frames / FRAMES_PER_S,
            voices=lambda: engine.voices,
            turns_resumed=lambda: self._stage.resumed,
        )
        settle()
        report("codec")("ready")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        limits = TurnLimits(**user_config.get("limits", {}))
        self._stage.engine.config = CodecConfig(**self._sizes.model_dump(), **limits.model_dump())

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[SpeechItem, None]:
        with staged("codec", turn, progress) as (turn, span):
            felt = self._feelings.turn(turn, self._stage.speak(turn, progress))
            async with aclosing(self._metrics.turn(felt, span)) as items:
                async for item in items:
                    yield item

    async def encode_voice(self, pcm: bytes) -> bytes:
        return await self._stage.encode_voice(pcm)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler, which Serve asks on its behalf."""
        return self._feelings.told()

    async def check_health(self) -> None:
        self._stage.engine.check()

    async def state(self) -> dict[str, Any]:
        return self._metrics.state()
