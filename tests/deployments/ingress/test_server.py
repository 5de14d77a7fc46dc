"""Ports, contexts, probes and the drain."""

import asyncio
import contextvars
import os
import socket
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from chroma_models.types import Admitted, Turn
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.doors import Doors
from deployments.ingress.sockets import CannotListen, listen
from tests.deployments.ingress.conftest import DEFAULTS, Service, Start
from tests.deployments.ingress.scripted import Scripted, chunk, finished, reply, until

PARENT: contextvars.ContextVar[str] = contextvars.ContextVar("parent", default="none")


async def test_probes_tell_alive_ready_and_draining_apart(start: Start) -> None:
    service = await start(drain_linger_s=0.5)
    get = service.http.get
    assert (await get("/healthz")).status_code == 200
    assert (await get("/readyz")).status_code == 503
    assert (await get("/-/healthz")).text == "success"
    service.app.health.ready = True
    assert (await get("/readyz")).status_code == 200
    drain = asyncio.create_task(service.server.drain())
    await asyncio.sleep(0.05)
    assert (await get("/healthz")).status_code == 200
    assert (await get("/readyz")).status_code == 503
    told = await get("/-/healthz")
    assert (told.status_code, told.text) == (503, "draining")
    await drain


async def test_a_drain_lets_a_live_stream_end_and_takes_no_new_connection(start: Start) -> None:
    service = await start(drain_wait_s=20)
    service.speaker.script = reply(frames=20, group=2, pause_s=0.05)
    live = asyncio.create_task(service.ask(audio={"format": "pcm16"}))
    await until(lambda: service.speaker.open > 0)
    drain = asyncio.create_task(service.server.drain())
    await asyncio.sleep(0.1)
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", service.http.base_url.port)
    assert not live.done()
    assert (await live).status_code == 200
    await drain
    assert not service.server.alive


async def test_a_drain_cuts_what_does_not_end_and_closes_its_turn(start: Start) -> None:
    service = await start(drain_wait_s=0.1)
    service.speaker.script = reply(frames=3000, group=1, pause_s=0.05)
    live = [asyncio.create_task(service.ask(stream=stream, audio={})) for stream in (True, False)]
    await until(lambda: service.speaker.open >= 2)
    await service.server.drain()
    await service.speaker.all_closed()
    streamed, whole = await asyncio.gather(*live)
    assert "shutting down" in streamed.text.splitlines()[-2]
    assert whole.status_code == 503
    assert "shutting down" in whole.text


async def test_two_servers_share_a_port_and_the_port_outlives_one(start: Start) -> None:
    one = await start()
    two = await start(http_port=one.server.port)
    assert one.server.port == two.server.port
    await one.server.drain()
    async with httpx.AsyncClient(base_url=two.http.base_url, trust_env=False) as fresh:
        for _ in range(10):
            assert (await fresh.get("/healthz", headers={"connection": "close"})).status_code == 200


async def test_a_port_of_another_program_is_a_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = Doors(*unstarted(port))
        with pytest.raises(CannotListen, match=rf"Port {port} is taken"):
            await server.start()
        assert not server.alive


async def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
        await listen("192.0.2.1", 0, 1, 1 << 17, 1.0)
    with pytest.raises(CannotListen, match="not one of this machine"):
        await listen("no such host", 0, 1, 1 << 17, 1.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on any port")
async def test_a_forbidden_port_is_a_clear_error() -> None:
    with pytest.raises(CannotListen, match="not permitted"):
        await listen("127.0.0.1", 1, 1, 1 << 17, 1.0)


def unstarted(port: int) -> tuple[IngressApp, IngressConfig]:
    config = IngressConfig(http_port=port, grpc_port=None)
    return IngressApp(Scripted(), config, DEFAULTS), config


async def test_turns_do_not_inherit_the_context_that_started_the_server(start: Start) -> None:
    """In that context a request of Serve may be current; turns that were its children would die together."""
    PARENT.set("a request of Serve")
    service = await start()
    seen = []

    async def script(turn: Turn) -> AsyncGenerator[Any, None]:
        seen.append(PARENT.get())
        yield Admitted("x")
        yield chunk(0, 1, 1)
        yield finished(1)

    service.speaker.script = script
    assert (await service.ask()).status_code == 200
    assert seen == ["none"]


async def test_a_server_whose_task_died_is_not_alive(service: Service) -> None:
    assert service.server.alive
    await service.server.drain()
    assert not service.server.alive
    await service.server.drain()  # a second time does nothing
