"""A running graph, as its clients see it, and what its replicas say of themselves."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

from tests.conftest import ROOT

T = TypeVar("T")

QUESTION = ROOT / "deployments" / "ingress" / "voices" / "question.wav"
STAGES = ("Ingress", "Codec", "Backbone", "Decoder", "Reasoner")


@dataclass
class Heard:
    """A reply as it was streamed."""

    status: int
    pcm: bytes = b""
    words: str = ""
    codes: np.ndarray = field(default_factory=lambda: np.zeros((0, 8), np.int16))
    pieces: int = 0
    error: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    finish: str | None = None


@dataclass
class Graph:
    name: str
    url: str
    grpc: str
    stages: tuple[str, ...]
    running: bool = True

    @classmethod
    def start(cls, name: str, checkpoint: Path, **tree: Any) -> "Graph":
        from deployments.cluster import deploy
        from deployments.settings import Settings

        with socket.socket() as probe, socket.socket() as other:
            for one in (probe, other):
                one.bind(("127.0.0.1", 0))
            port, grpc_port = probe.getsockname()[1], other.getsockname()[1]
        models = {
            "checkpoint": str(checkpoint),
            "torch": {"device": "cpu", "dtype": "float32", "threads": 1},
            **tree.pop("models", {}),
        }
        models["ingress"] = {
            "http_port": port,
            "grpc_port": grpc_port,
            "drain_linger_s": 0.1,
            "auth": False,
            **models.get("ingress", {}),
        }
        settings = Settings.load(None, models=models, **tree)
        deploy(settings, name)
        fused = settings.models.placement == "fused"
        stages = tuple(s for s in STAGES if not (fused and s == "Decoder"))
        return cls(name, f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", stages)

    def stop(self) -> None:
        from ray import serve

        if self.running:
            serve.delete(self.name)
            self.running = False

    def body(self, **changes: Any) -> dict[str, Any]:
        """A spoken question, streamed in the default voice, with the codes; at most two seconds of reply."""
        clip = base64.b64encode(QUESTION.read_bytes()).decode()
        body = {
            "model": "chroma",
            "messages": [
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": clip, "format": "wav"}}]}
            ],
            "modalities": ["text", "audio"],
            "audio": {"voice": "default", "format": "pcm16"},
            "stream": True,
            "stream_options": {"include_usage": True},
            "chroma": {"max_reply_s": 2.0, "codes": True},
        }
        return {**body, **changes}

    async def ask(
        self, client: httpx.AsyncClient, *, leave: Callable[[Heard], bool] = lambda _: False, **changes: Any
    ) -> Heard:
        """Stream one reply; hang up as soon as leave() says so."""
        async with client.stream("POST", f"{self.url}/v1/chat/completions", json=self.body(**changes)) as response:
            heard = Heard(response.status_code)
            if response.status_code != 200:
                heard.error = json.loads(await response.aread())["error"]
                return heard
            async for event in _events(response):
                _take(heard, event)
                if leave(heard):
                    return heard
        return heard

    async def states(self) -> dict[str, dict[str, Any]]:
        """What every stage holds right now."""
        return {stage: await self.state(stage) for stage in self.stages}

    async def state(self, stage: str, session: str = "") -> dict[str, Any]:
        """What one replica of a stage holds, the one that session is routed to."""
        return await on_ray(self._state(stage, session))

    async def _state(self, stage: str, session: str) -> dict[str, Any]:
        from ray import serve

        handle = serve.get_deployment_handle(stage, self.name).options(session_id=session)
        return await handle.state.remote()

    async def idle(self, within_s: float = 30.0) -> dict[str, dict[str, Any]]:
        """The states once no stage holds a slot or runs a turn. Fails when that takes too long."""
        for _ in range(int(within_s / 0.1)):
            states = await self.states()
            if not any(s.get("slots_held", 0) or s.get("turns_running", 0) for s in states.values()):
                return states
            await asyncio.sleep(0.1)
        raise AssertionError(f"something is still held: {states}")


async def on_ray(work: Coroutine[Any, Any, T]) -> T:
    """Runs what uses handles in the one loop that they stay with."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _ray_loop()))


@cache
def _ray_loop() -> asyncio.AbstractEventLoop:
    """Handles stay with the event loop they were first used in, and every test has its own: so, one for them."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="handles", daemon=True).start()
    return loop


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def _take(heard: Heard, event: dict[str, Any]) -> None:
    heard.error = event.get("error", heard.error)
    heard.usage = event.get("usage") or heard.usage
    extension = event.get("chroma") or {}
    if extension.get("codes"):
        heard.codes = np.frombuffer(base64.b64decode(extension["codes"]), np.int16).reshape(-1, 8)
    for choice in event.get("choices", []):
        heard.finish = choice.get("finish_reason") or heard.finish
        audio = choice["delta"].get("audio") or {}
        heard.words += audio.get("transcript", "")
        if audio.get("data"):
            heard.pieces += 1
            heard.pcm += base64.b64decode(audio["data"])


async def exported(http: httpx.AsyncClient, *names: str) -> str:
    """Ray's metrics page once it holds all the names; it lags behind by its reporting interval."""
    import ray

    node = ray.nodes()[0]
    for _ in range(100):
        text = (await http.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")).text
        missing = [name for name in names if name not in text]
        if not missing:
            return text
        await asyncio.sleep(0.3)
    raise AssertionError(f"not exported: {missing}")
