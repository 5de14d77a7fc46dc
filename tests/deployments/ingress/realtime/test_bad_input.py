"""What a client may do wrong on a connection: its error or close code, while a good session beside it hears all."""

import asyncio
import base64
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import jwt
import psutil
import pytest
import websockets

from deployments.ingress.callers import Callers
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.realtime.conftest import Dial
from tests.deployments.ingress.scripted import reply, until

Json = dict[str, Any]
AUDIO = base64.b64encode(bytes(4800)).decode()  # 100 ms of silence
OFF = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def item(**fields: Any) -> str:
    return event("conversation.item.create", item={"type": "message", "role": "user", **fields})


WRONG: list[tuple[str, str | bytes, str, str]] = [
    ("binary frame", b"\x00\x01", "invalid_event", "binary"),
    ("not JSON", "{", "invalid_event", "JSON"),
    ("no object", "[]", "invalid_event", "object"),
    ("no type", "{}", "unknown_event", "type"),
    ("unknown event", event("response.sing"), "unknown_event", "response.sing"),
    ("unknown field", event("response.cancel", why="so"), "response_cancel_not_active", ""),
    ("NaN", '{"type": "conversation.item.truncate", "item_id": "a", "content_index": NaN}', "invalid_event", ""),
    ("deep", "[" * 5000, "invalid_event", ""),
    ("odd-length PCM", event("input_audio_buffer.append", audio="AA=="), "invalid_audio", ""),
    ("wrong base64", event("input_audio_buffer.append", audio="@@@@"), "invalid_audio", "base64"),
    ("audio of another type", event("input_audio_buffer.append", audio=7), "invalid_request", "audio"),
    ("empty commit", event("input_audio_buffer.commit"), "input_audio_buffer_commit_empty", "buffer"),
    ("nothing to cancel", event("response.cancel"), "response_cancel_not_active", "Cancellation failed"),
    ("unknown item", event("conversation.item.retrieve", item_id="x"), "item_retrieve_invalid_item_id", "x"),
    ("unknown role", item(role="ghost", content=[]), "invalid_request", "role"),
    ("unknown part", item(content=[{"type": "smell"}]), "invalid_request", ""),
    ("after nobody", event("conversation.item.create", previous_item_id="x", item={
        "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]
    }), "item_create_invalid_item_id", "x"),
    ("negative speed of speech", event("session.update", session={"type": "realtime", "temperature": -1}), "", ""),
    ("threshold of 7", event("session.update", session={
        "type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 7}}}
    }), "", ""),
    ("unknown voice", event("session.update", session={
        "type": "realtime", "audio": {"output": {"voice": "voice_of_nobody"}}
    }), "voice_not_found", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "code", "words"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
async def test_a_wrong_event_is_told_and_the_session_lives_on(
    dial: Dial, sent: str | bytes, code: str, words: str
) -> None:
    client = await dial()
    await client.send("session.update", session=OFF)
    await client.one("session.updated")
    await client.socket.send(sent)
    assert (await client.answered())["status"] == "completed"
    errors = client.all("error")
    if not code:  # what the model has no use for is put right in session.updated, and is no error
        assert not errors
        assert len(client.all("session.updated")) == 2
        return
    assert len(errors) == 1
    told = errors[0]["error"]
    assert code in str(told["code"])
    assert words in told["message"]
    await client.service.speaker.all_closed()


async def test_a_refused_event_is_named_by_its_own_id(dial: Dial) -> None:
    client = await dial()
    await client.send("response.cancel", event_id="evt_mine")
    assert (await client.one("error"))["error"]["event_id"] == "evt_mine"


async def test_an_oversized_event_closes_its_connection_and_no_other(dial: Dial) -> None:
    good = await dial(realtime={"max_event_bytes": 1 << 20})
    bad = await dial(good.service)
    with suppress(websockets.ConnectionClosed):  # the server need not read on to refuse
        await bad.socket.send(event("input_audio_buffer.append", audio="A" * (20 << 20)))
    await bad.socket.wait_closed()
    assert bad.socket.close_code == 1009
    assert (await good.answered())["status"] == "completed"


async def test_ten_thousand_appends_at_once_are_read_no_faster_than_is_fair(dial: Dial) -> None:
    good = await dial(realtime={"burst_events": 200, "max_events_per_s": 2000}, session={"max_input_s": 3.0})
    bad = await dial(good.service)
    await bad.send("session.update", session=OFF)
    audio = base64.b64encode(bytes(480)).decode()

    async def flood() -> None:
        for _ in range(10_000):
            await bad.send("input_audio_buffer.append", audio=audio)

    flooding = asyncio.create_task(flood())
    for _ in range(3):
        assert (await good.answered())["status"] == "completed"
    await flooding
    await until(lambda: len(bad.all("error")) >= 9_700, 60.0)  # 3 s of 10 ms each fit, and every other one is told
    assert {e["error"]["code"] for e in bad.all("error")} == {"too_large"}
    assert not good.all("error")


async def test_append_after_close_reaches_nobody(dial: Dial) -> None:
    client = await dial()
    await client.socket.close()
    with pytest.raises(websockets.ConnectionClosed):
        await client.send("input_audio_buffer.append", audio=AUDIO)
    await until(lambda: not client.service.app.health.live)


async def test_a_half_open_connection_is_found_by_its_silence(dial: Dial) -> None:
    good = await dial(realtime={"ping_interval_s": 0.2, "ping_timeout_s": 0.3})
    good.service.speaker.script = reply(frames=400, pause_s=0.02)
    port = good.service.server.port
    raw = socket.create_connection(("127.0.0.1", port))
    try:
        raw.sendall(
            b"GET /v1/realtime?model=chroma HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await until(lambda: good.service.app.health.live == 2)
        await until(lambda: good.service.app.health.live == 1)  # it answered no ping
    finally:
        raw.close()
    good.service.speaker.script = reply()
    assert (await good.answered())["status"] == "completed"


async def test_a_client_that_never_reads_holds_nobody_up_and_is_given_up(dial: Dial) -> None:
    good = await dial(max_send_s=1.0)
    service = good.service
    service.speaker.by_word["endless"] = reply(frames=3_000)
    port = service.server.port
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    try:
        raw.sendall(
            b"GET /v1/realtime?model=chroma HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await until(lambda: service.app.health.live == 2)
        for sent in (item(content=[{"type": "input_text", "text": "endless words"}]), event("response.create")):
            raw.sendall(_frame(sent.encode()))
        await until(lambda: len(service.speaker.turns) == 1)
        assert (await good.answered())["status"] == "completed"
        await until(lambda: service.app.health.live == 1, 30.0)
        await service.speaker.all_closed()
        await until(lambda: _connections(port) == 1, 30.0)  # what waited in the kernel for it is gone, too
    finally:
        raw.close()


def _connections(port: int) -> int:
    """How many the server holds."""
    held = psutil.Process().net_connections("tcp")
    return sum(one.laddr.port == port and one.status != psutil.CONN_LISTEN for one in held)


def _frame(text: bytes) -> bytes:
    """A masked text frame, the mask being zero."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text))
    return b"\x81" + size + bytes(4) + text


SECRET = "equal on all replicas, and long enough to sign with"


@pytest.fixture
async def guarded(start: Start) -> Service:
    return await start(auth=True, token_secret=SECRET)


async def token_of(service: Service, seconds: float = 60.0) -> str:
    services = service.app.services
    caller = await services.callers.of_key(await service.key())
    now_s = time.time() + seconds - 60.0
    return Callers(services.config, services.tenants, lambda: now_s).client_secret(caller, {}, 60.0).value


async def broken(service: Service) -> str:
    return (await token_of(service))[:-4] + "AAAA"


async def said(secret: str) -> str:
    return secret


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (lambda s: said("key-of-nobody"), 401),
        (lambda s: token_of(s, -1.0), 401),  # expired
        (broken, 401),
        (lambda s: said("ek_" + jwt.encode({"tenant": "zoo"}, "another secret that signs nothing here", "HS256")), 401),
        (lambda s: token_of(s), 101),
        (lambda s: s.key("zoo"), 101),
    ],
    ids=["unknown key", "expired token", "broken token", "forged token", "token", "key"],
)
async def test_who_may_enter_is_decided_before_the_upgrade(
    guarded: Service, key: Callable[[Service], Awaitable[str]], status: int
) -> None:
    secret = await key(guarded)
    if status == 101:
        await (await Client.connect(guarded, secret)).close()
        return
    with pytest.raises(websockets.InvalidStatus) as refused:
        await Client.connect(guarded, secret)
    assert refused.value.response.status_code == status
    body = json.loads(refused.value.response.body or b"{}")
    assert body["error"]["code"] == "invalid_api_key"


async def test_a_browser_shows_its_key_as_a_subprotocol(guarded: Service) -> None:
    url = f"ws://127.0.0.1:{guarded.server.port}/v1/realtime"
    for secret in (await guarded.key(), await token_of(guarded)):
        asked = [websockets.Subprotocol(p) for p in ("realtime", f"openai-insecure-api-key.{secret}")]
        async with websockets.connect(url, subprotocols=asked) as live:
            assert live.subprotocol == "realtime"
            assert json.loads(await live.recv())["type"] == "session.created"
    with pytest.raises(websockets.InvalidStatus, match="401"):
        await websockets.connect(
            url, subprotocols=[websockets.Subprotocol(p) for p in ("realtime", "openai-insecure-api-key.wrong")]
        )


async def test_a_token_of_one_tenant_opens_nothing_of_another(guarded: Service) -> None:
    """What a session refers to, a stored voice, is looked up for the token's own tenant alone."""
    client = await Client.connect(guarded, await token_of(guarded))
    await client.send(
        "session.update", session={"type": "realtime", "audio": {"output": {"voice": {"id": "voice_of_the_zoo"}}}}
    )
    assert "voice_not_found" in (await client.one("error"))["error"]["code"]
    await client.close()


async def test_a_full_replica_refuses_with_a_time_before_the_upgrade(dial: Dial) -> None:
    good = await dial(realtime={"max_sessions": 1})
    with pytest.raises(websockets.InvalidStatus) as refused:
        await Client.connect(good.service)
    assert refused.value.response.status_code == 429
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert (await good.answered())["status"] == "completed"
