"""The Backbone on a cluster: text steps in, frames out."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from chroma_models.checkpoint.fetch import resolve
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import BackboneConfig, TurnLimits
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.decoder_engine import FrameDecoder, FusedDecoder
from chroma_models.engine.warm_up import warm_up
from chroma_models.loading import fingerprint, load_backbone, load_decoder, set_threads
from chroma_models.reasoner.prompts import PromptBuilder
from chroma_models.stages.backbone import BackboneStage, FrameItem
from chroma_models.types import FRAMES_PER_S, Progress, Turn
from deployments.autoscaling.feelings import Feelings
from deployments.garbage import settle
from deployments.handles import RemoteDecoder, RemoteReasoner, answering
from deployments.logs import configure, expect_refusals, loading, report
from deployments.metrics import Slots, StageMetrics
from deployments.settings import Models
from deployments.traces import FirstFrames, export_traces, staged


class Backbone:
    """Ready once a turn has gone through its engine and through the Decoder, wherever that is."""

    async def __init__(  # type: ignore[misc]
        self, models: Models, reasoner: DeploymentHandle, decoder: DeploymentHandle | None = None
    ) -> None:
        self._sizes, self._first_frames = models.backbone, FirstFrames()
        expect_refusals()
        set_threads(models.torch)
        configure(models.logs, "backbone")
        export_traces(models.traces, "backbone")
        checkpoint = Checkpoint.open(resolve(models.checkpoint, report("backbone")))
        with loading(report("backbone"), checkpoint):
            backbone = load_backbone(checkpoint, models.torch)
        completer: FrameDecoder
        if decoder is None:
            completer = FusedDecoder(load_decoder(checkpoint, models.torch, models.decoder))
        else:
            completer = RemoteDecoder(decoder, asyncio.get_running_loop(), self._first_frames)
            await answering(decoder, "Decoder")
        config = BackboneConfig(**models.backbone.model_dump())
        engine = BackboneEngine(backbone, completer, config, fused=decoder is None)
        await engine.start()
        await warm_up(engine)
        await answering(reasoner, "Reasoner")
        prompts = PromptBuilder(checkpoint.folder, checkpoint.architecture)
        mark = fingerprint(checkpoint, models.torch, models.decoder)
        self._stage = BackboneStage(engine, RemoteReasoner(reasoner), prompts.voice_prompt, mark)
        self._feelings = Feelings(models.backbone.slots, lambda: engine.slots_held, load=lambda: engine.load)
        self._metrics = StageMetrics(
            "backbone",
            models.placement,
            Slots(lambda: engine.slots_held, lambda: models.backbone.slots),
            engine.ran,
            lambda: engine.ran.rows / FRAMES_PER_S,
            prefill_positions=lambda: engine.prefill_positions,
            turns_resumed=lambda: self._stage.resumed,
        )
        settle()
        report("backbone")("ready")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        limits = TurnLimits(**user_config.get("limits", {}))
        self._stage.engine.config = BackboneConfig(**self._sizes.model_dump(), **limits.model_dump())

    async def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[FrameItem, None]:
        with staged("backbone", turn, progress) as (turn, span), self._first_frames.of(turn):
            felt = self._feelings.turn(turn, self._stage.frames(turn, progress))
            async with aclosing(self._metrics.turn(felt, span)) as items:
                async for item in items:
                    yield item

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler, which Serve asks on its behalf."""
        return self._feelings.told()

    async def check_health(self) -> None:
        self._stage.engine.check()

    async def state(self) -> dict[str, Any]:
        return self._metrics.state()
