"""Replicas of the ingress come and go under live streams."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from websockets.exceptions import WebSocketException

from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments import paced
from tests.deployments.graph import on_ray
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.rpc.client import Talk, ask, heard

pytestmark = pytest.mark.serve

APP = "paced"
REPLY_S = 4
REPLY_BYTES = REPLY_S * 24_000 * 2
APART = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own


@dataclass(frozen=True)
class Doors:
    http: int
    grpc: int
    checkpoint: Path
    database: str

    def run(self, replicas: int, **changes: Any) -> None:
        ports = {"http_port": self.http, "grpc_port": self.grpc, "database_url": self.database, "auth": False}
        paced.run(APP, self.checkpoint, replicas, **ports, drain_linger_s=1.5, **changes)

    async def states(self) -> dict[int, int]:
        """Live calls of every replica, by its process."""
        return {state["pid"]: state["turns_running"] for state in await on_ray(_states())}


async def _states() -> list[dict[str, Any]]:
    from ray import serve

    handle = serve.get_deployment_handle("Ingress", APP)
    await handle.state.remote()
    found: list[dict[str, Any]] = await handle.broadcast("state").results_async()
    return found


@pytest.fixture(scope="module")
def doors(cluster: None, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    from ray import serve

    with socket.socket() as one, socket.socket() as other:
        for port in (one, other):
            port.bind(("127.0.0.1", 0))
        numbers = one.getsockname()[1], other.getsockname()[1]
    database = f"sqlite:///{tmp_path_factory.mktemp('voices') / 'voices.db'}"
    found = Doors(*numbers, tiny, database)
    found.run(2)
    yield found
    serve.delete(APP)


class Streams:
    """Live streams, every second over gRPC, each of its own connection."""

    def __init__(self, doors: Doors, stack: AsyncExitStack) -> None:
        self._doors, self._stack = doors, stack
        self._service = SimpleNamespace(server=SimpleNamespace(port=doors.http))

    async def one(self, number: int, speaking: asyncio.Event | None = None) -> str | None:
        """What broke before a whole reply was heard on a new connection. speaking: set at its first audio."""
        speaking = speaking or asyncio.Event()
        try:
            await (self._over_grpc(speaking) if number % 2 else self._over_websocket(speaking))
        except (OSError, grpc.aio.AioRpcError, WebSocketException, AssertionError) as error:
            return f"{'gRPC' if number % 2 else 'WebSocket'}: {error!r}"
        return None

    async def _over_websocket(self, speaking: asyncio.Event) -> None:
        client = await Client.connect(self._service)  # type: ignore[arg-type]
        try:
            await client.send("session.update", session={"type": "realtime", "chroma": {"max_reply_s": REPLY_S}})
            await client.say("hello")
            await client.send("response.create")
            await client.one("response.output_audio.delta")
            speaking.set()
            response = (await client.one("response.done"))["response"]
            assert response["status"] == "incomplete"
            assert len(client.audio(response["id"])) == REPLY_BYTES
        finally:
            await client.close()

    async def _over_grpc(self, speaking: asyncio.Event) -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._doors.grpc}", options=APART)
        async with channel:
            talk = await Talk.open(SpeechServiceStub(channel), max_reply=Duration(seconds=REPLY_S))
            await talk.say("hello")
            await talk.one("response_delta")
            speaking.set()
            done = await talk.one("response_done")
            talk.call.cancel()
            assert done.finish_reason == pb.FINISH_REASON_LENGTH
            assert len(talk.audio(done.response_id)) == REPLY_BYTES

    async def begin(self, count: int) -> list[asyncio.Task[str | None]]:
        """So many at once, all of them speaking."""
        speaking = [asyncio.Event() for _ in range(count)]
        streams = [asyncio.create_task(self.one(i, event)) for i, event in enumerate(speaking)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(event.wait() for event in speaking))
        return streams


@pytest.fixture
async def streams(doors: Doors) -> AsyncIterator[Streams]:
    async with AsyncExitStack() as stack:
        yield Streams(doors, stack)


async def test_a_rolling_update_under_twenty_live_streams_breaks_none(doors: Doors, streams: Streams) -> None:
    before = await doors.states()
    assert len(before) == 2
    live = await streams.begin(20)
    update = asyncio.create_task(asyncio.to_thread(doors.run, 2, keepalive_s=80))
    late = []
    while not update.done():  # who comes meanwhile is served too
        late.append(asyncio.create_task(streams.one(len(late))))
        await asyncio.sleep(0.5)
    await update
    assert await asyncio.gather(*live) == [None] * 20
    assert await asyncio.gather(*late) == [None] * len(late)
    assert late
    after = await doors.states()
    assert len(after) == 2
    assert not before.keys() & after.keys()


async def test_a_killed_replica_breaks_its_own_streams_alone(doors: Doors, streams: Streams) -> None:
    live = await streams.begin(16)
    states = await doors.states()
    assert len(states) == 2
    killed, broken = min(states.items(), key=lambda state: state[1])
    assert sum(states.values()) == 16
    assert 0 < broken < 16
    os.kill(killed, signal.SIGKILL)
    errors = await asyncio.gather(*live)
    assert 16 - errors.count(None) == broken, errors
    async with asyncio.timeout(60):  # and another takes its place
        while killed in (states := await doors.states()) or len(states) < 2:
            await asyncio.sleep(0.2)
    assert await asyncio.gather(*(streams.one(i) for i in range(6))) == [None] * 6


async def test_a_cancelled_turn_leaves_those_of_its_connection_alone(doors: Doors) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{doors.grpc}") as channel:
        speech = SpeechServiceStub(channel)
        calls = [speech.Generate(ask(max_reply=Duration(seconds=2))) for _ in range(4)]
        for call in calls:
            await call.read()
        calls[0].cancel()
        for told in await asyncio.gather(*(heard(call) for call in calls[1:])):
            assert sum(len(one.response_delta.audio) for one in told) == 2 * 24_000 * 2
