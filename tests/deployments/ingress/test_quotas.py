"""A tenant's streams are counted before one is accepted, in every protocol, and end with the key that opened them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import websockets
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from grpc_status import rpc_status

from chroma_models.types import Admitted
from deployments.ingress.api_key import parse_key
from deployments.ingress.rpc.stubs.speech_service_pb2 import ConverseRequest, GenerateRequest, SessionConfig
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.scripted import FINGERPRINT, chunk, items, reply, until

ENDLESS = items(Admitted(FINGERPRINT), chunk(0, 10, 25), 60.0)
BODY = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def post(service: Service, key: str, **more: Any) -> Any:
    return await service.http.post("/v1/chat/completions", headers=bearer(key), **more)


async def free(service: Service) -> None:
    permits = service.app.services.permits
    await until(lambda: not permits.held and not permits.owing)


async def by_chat(service: Service, key: str) -> Callable[[], Awaitable[str]]:
    """A stream that runs; the result waits for its end, and tells the code of its error."""
    stream = service.http.stream("POST", "/v1/chat/completions", json=BODY, headers=bearer(key))
    response = await stream.__aenter__()
    assert response.status_code == 200

    async def end() -> str:
        told = [line async for line in response.aiter_lines() if line.startswith("data: ")]
        await stream.__aexit__(None, None, None)
        return str(json.loads(told[-1].removeprefix("data: "))["error"]["code"])

    return end


async def by_websocket(service: Service, key: str) -> Callable[[], Awaitable[str]]:
    client = await Client.connect(service, key)

    async def end() -> str:
        await client.socket.wait_closed()
        await client.close()
        return f"{client.socket.close_code} {client.socket.close_reason}"

    return end


async def by_grpc(service: Service, key: str) -> Callable[[], Awaitable[str]]:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}")
    call = SpeechServiceStub(channel).Converse(metadata=(("authorization", f"Bearer {key}"),))
    await call.write(ConverseRequest(config=SessionConfig()))
    await call.read()

    async def end() -> str:
        code = await call.code()
        await channel.close()
        return str(code.name)

    return end


ENDS = {by_chat: "invalid_api_key", by_websocket: "1008 invalid_api_key", by_grpc: "UNAUTHENTICATED"}


@pytest.mark.parametrize("opened", ENDS, ids=["chat", "websocket", "grpc"])
async def test_a_stream_of_any_protocol_takes_the_one_permit_there_is(start: Start, opened: Any) -> None:
    service = await start(auth=True)
    key, other = await service.key(streams=1), await service.key("zoo")
    service.speaker.script = ENDLESS
    end = await opened(service, key)

    refused = await post(service, key, content=b"{ no body of any use", timeout=5)
    assert (refused.status_code, refused.json()["error"]["param"]) == (429, "streams")
    assert refused.headers["retry-after"] == "1"
    with pytest.raises(websockets.InvalidStatus) as closed:
        await Client.connect(service, key)
    assert closed.value.response.status_code == 429
    assert closed.value.response.headers["retry-after"] == "1"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}") as channel:
        metadata = (("authorization", f"Bearer {key}"),)
        for call in (
            SpeechServiceStub(channel).Converse(metadata=metadata),  # which sends nothing
            SpeechServiceStub(channel).Generate(GenerateRequest(), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as aborted:
                await call.read()
            assert aborted.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            status = rpc_status.from_call(aborted.value)
            quota, retry = QuotaFailure(), RetryInfo()
            assert any(detail.Unpack(quota) for detail in status.details)
            assert any(detail.Unpack(retry) for detail in status.details)
            assert quota.violations[0].subject == "tenant:streams"
            assert retry.retry_delay.seconds == 1

    service.speaker.script = reply(5)
    answered = await post(service, other, json=BODY)  # nobody else notices
    assert answered.status_code == 200
    assert answered.headers["x-ratelimit-limit-streams"] == "10"
    assert answered.headers["x-ratelimit-remaining-streams"] == "9"

    parsed = parse_key(key)
    assert parsed is not None
    again = await service.key()
    await service.app.services.tenants.revoke("acme", parsed.key_id)
    assert await asyncio.wait_for(end(), 20) == ENDS[opened]
    await free(service)
    assert (await post(service, again, json=BODY)).status_code == 200


async def test_what_is_refused_after_the_permit_gives_it_back(start: Start) -> None:
    service = await start(auth=True)
    key = await service.key(streams=1)
    wrong = [{"json": {"model": "chroma"}}, {"content": b"no json"}, {"json": {**BODY, "audio": {"voice": "nobody"}}}]
    for body in wrong:
        assert (await post(service, key, **body)).status_code in (400, 404)
        await free(service)
    with pytest.raises(websockets.InvalidStatus, match="404"):
        await websockets.connect(
            f"ws://127.0.0.1:{service.server.port}/v1/realtime?model=other", additional_headers=bearer(key)
        )
    await free(service)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}") as channel:
        call = SpeechServiceStub(channel).Generate(GenerateRequest(), metadata=(("authorization", f"Bearer {key}"),))
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
    await free(service)
    assert (await post(service, key, json=BODY)).status_code == 200


async def test_without_a_database_nobody_new_is_let_in_and_who_speaks_goes_on(start: Start) -> None:
    service = await start(auth=True, database_timeout_s=0.5)
    key = await service.key()
    service.speaker.script = reply(25, pause_s=0.2)
    services = service.app.services
    speaking = asyncio.create_task(post(service, key, json=BODY))
    await until(lambda: services.permits.held == 1)
    await services.database.close()
    refused = await post(service, key, json=BODY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stage_unavailable")
    spoken = await speaking
    assert (spoken.status_code, spoken.text.endswith("data: [DONE]\n\n")) == (200, True)
    await services.database.open()
    assert (await post(service, key, json=BODY)).status_code == 200
