"""The Reasoner on a cluster: conversations in, text steps out."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from chroma_models.checkpoint.fetch import resolve
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import ReasonerConfig, TurnLimits
from chroma_models.interleave import FRAMES_PER_PAIR
from chroma_models.loading import set_threads
from chroma_models.reasoner import make_reasoner
from chroma_models.stages.backbone import StepItem
from chroma_models.types import FRAMES_PER_S, Turn
from deployments.autoscaling.feelings import Feelings
from deployments.garbage import settle
from deployments.logs import configure, expect_refusals, report
from deployments.metrics import Slots, StageMetrics
from deployments.settings import Models
from deployments.traces import export_traces, staged


class Reasoner:
    """Ready once the engine has proven its hidden-state tap (vLLM) or started its loop (torch)."""

    async def __init__(self, models: Models) -> None:  # type: ignore[misc]
        self._sizes = models.reasoner
        expect_refusals()
        set_threads(models.torch)
        configure(models.logs, "reasoner")
        export_traces(models.traces, "reasoner")
        checkpoint = Checkpoint.open(resolve(models.checkpoint, report("reasoner")))
        config = ReasonerConfig(**models.reasoner.model_dump())
        self._engine = make_reasoner(checkpoint, config, models.torch, stat_loggers(config))
        report("reasoner")(f"starting the {models.reasoner.engine} engine")
        await self._engine.start()
        engine = self._engine
        self._feelings = Feelings(models.reasoner.slots, lambda: engine.requests_running)
        self._metrics = StageMetrics(
            "reasoner",
            models.placement,
            Slots(lambda: engine.requests_running, lambda: models.reasoner.slots),
            engine.ran,
            lambda: engine.ran.rows * FRAMES_PER_PAIR / FRAMES_PER_S,
        )
        settle()
        report("reasoner")("ready")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        limits = TurnLimits(**user_config.get("limits", {}))
        self._engine.config = ReasonerConfig(**self._sizes.model_dump(), **limits.model_dump())

    async def steps(self, turn: Turn, after: Sequence[int] = ()) -> AsyncGenerator[StepItem, None]:
        with staged("reasoner", turn) as (turn, span):
            felt = self._feelings.turn(turn, self._engine.steps(turn, after))
            async with aclosing(self._metrics.turn(felt, span)) as items:
                async for item in items:
                    yield item

    async def warm(self, turn: Turn) -> None:
        """Best effort, while the user still speaks."""
        await self._engine.warm(turn)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler, which Serve asks on its behalf."""
        return self._feelings.told()

    async def check_health(self) -> None:
        self._engine.check()

    async def state(self) -> dict[str, Any]:
        """What is held right now; for tests and for the curious."""
        return self._metrics.state()


def stat_loggers(config: ReasonerConfig) -> list[Any]:
    """vLLM's own metrics, through Ray."""
    if config.engine != "vllm":
        return []
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    return [RayPrometheusStatLogger]
