"""The ingress on a cluster: the replica that runs the public servers inside itself."""

import asyncio
import os
from dataclasses import replace
from typing import Any

from ray.serve.handle import DeploymentHandle

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.checkpoint.fetch import resolve
from chroma_models.config import TurnLimits
from chroma_models.errors import ChromaError, StageUnavailable
from chroma_models.types import Sampling
from deployments.garbage import settle
from deployments.handles import RemoteCodec, answering
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.doors import Doors
from deployments.ingress.probe import first_audio_s, own_turn
from deployments.ingress.secret_settings import filled
from deployments.ingress_metrics import IngressMetrics
from deployments.logs import configure, report
from deployments.settings import Models
from deployments.traces import export_traces

WARM_UP_TRIES = 120
WARM_UP_PAUSE_S = 2.0


class Ingress:
    """Ready once a turn of its own has come back from the other end of the graph as audio."""

    async def __init__(self, models: Models, codec: DeploymentHandle) -> None:  # type: ignore[misc]
        configure(models.logs, "ingress")
        export_traces(models.traces, "ingress")
        say = report("ingress")
        architecture = Architecture.read(resolve(models.checkpoint, say))
        self._speaker = RemoteCodec(codec)
        self._sizes = filled(models.ingress)
        self._context_tokens = models.reasoner.max_model_len
        config = self._config(TurnLimits())
        self._app = IngressApp(self._speaker, config, default_sampling(architecture))
        self._metrics = IngressMetrics(self._app.services, models.placement)
        self._app.services.ledger.ended = self._metrics.ended
        self._doors = Doors(self._app, config)
        await self._doors.start()
        await self._app.services.vad.warm()
        await answering(codec, "Codec")
        await self._warm_up()
        settle()
        self._app.health.ready = True
        self._metrics.start()
        say(f"ready on port {self._doors.port}, gRPC on {self._doors.grpc_port}")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        limits = TurnLimits(**user_config.get("limits", {}))
        self._app.reconfigure(self._config(limits))

    def _config(self, limits: TurnLimits) -> IngressConfig:
        return IngressConfig(**self._sizes.model_dump(), **limits.model_dump(), context_tokens=self._context_tokens)

    async def _warm_up(self) -> None:
        """Retried while the stages behind come up. Raises the last error when they do not."""
        for attempt in range(WARM_UP_TRIES):
            try:
                turn = replace(own_turn(await self._app.services.voices.built_in(), "warm-up"), pace="fast")
                await first_audio_s(self._speaker, turn)
                return
            except ChromaError as error:
                if attempt == WARM_UP_TRIES - 1:
                    raise
                report("ingress")(f"warm-up turn failed, trying again: {error}")
                await asyncio.sleep(WARM_UP_PAUSE_S)

    async def drain(self) -> None:
        """Take no more turns, and return when the live ones have ended or were cut."""
        await self._doors.drain()

    async def __del__(self) -> None:
        """Awaited by Serve within graceful_shutdown_timeout_s: live streams end first."""
        await self.drain()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler, which Serve asks on its behalf: its own count sees none of these streams."""
        return {"slots": float(self._sizes.max_concurrent), "slots_held": float(self._app.health.live)}

    async def check_health(self) -> None:
        if not self._doors.alive:
            raise StageUnavailable("A server inside the ingress has ended.")

    async def state(self) -> dict[str, Any]:
        return {"turns_running": self._app.health.live, "tasks": len(asyncio.all_tasks()), "pid": os.getpid()}


def default_sampling(architecture: Architecture) -> Sampling:
    """generation_config.json's sampling; greedy where it asks for none, as the reference is."""
    generation = architecture.generation
    if not generation.get("do_sample"):
        return Sampling(seed=0)
    temperature, top_k = generation.get("temperature"), generation.get("top_k")
    return Sampling(
        seed=0,
        temperature=1.0 if temperature is None else float(temperature),
        top_k=50 if top_k is None else int(top_k),
    )
