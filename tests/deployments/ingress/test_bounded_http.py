"""What comes before a request is one: heads without end, heads that never end, connections without number."""

import asyncio
import json
from typing import Any

import pytest

from tests.deployments.ingress.conftest import Service, Start

LINE = b"GET /v1/models HTTP/1.1\r\nhost: here\r\n"


async def answer(service: Service, *pieces: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, str], Any]:
    """What is said to these bytes: status, headers and body. The server has to close the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause_s)
        head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    except ConnectionError:
        return 0, {}, None
    finally:
        writer.close()
    first, *lines = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), json.loads(body)


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"x: " + b"a" * 9_000 + b"\r\n\r\n",
        LINE + b"".join(b"x%d: %b\r\n" % (i, b"a" * 900) for i in range(10)) + b"\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n",
        LINE + b"x: " + b"a" * 9_000,  # and it is not over yet
    ],
)
async def test_a_head_is_read_no_further_than_its_limit(start: Start, head: bytes) -> None:
    service = await start(max_header_bytes=8_192)
    status, headers, told = await answer(service, head)
    assert (status, told["error"]["code"]) == (431, "headers_too_large")
    assert headers["x-request-id"].startswith("req_")
    assert (await service.http.get("/v1/models")).status_code == 200


async def test_a_head_has_a_bounded_number_of_headers(start: Start) -> None:
    service = await start(max_headers=20)
    many = {f"x{i}": "a" for i in range(30)}
    assert (await service.http.get("/v1/models", headers=many)).status_code == 431
    assert (await service.http.get("/v1/models", headers={"x": "a"})).status_code == 200


@pytest.mark.parametrize("pieces", [(), (b"GET",), (LINE, b"x", b": a\r\n"), (b"\r\n", b"\r\n")])
async def test_a_head_that_does_not_come_is_not_waited_for(start: Start, pieces: tuple[bytes, ...]) -> None:
    service = await start(header_timeout_s=0.3)
    status, _, told = await answer(service, *pieces, pause_s=0.05)
    assert (status, told["error"]["code"]) == (408, "request_timeout")


async def test_a_next_request_that_stays_a_half_is_not_waited_for(start: Start) -> None:
    """The time for an idle connection is another, and longer."""
    service = await start(header_timeout_s=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
    writer.write(LINE + b"\r\n")
    await reader.readuntil(b"}]}")
    await asyncio.sleep(0.5)
    writer.write(b"GET /v1")
    told = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert told.startswith(b"HTTP/1.1 408 ")


async def test_a_slow_turn_is_no_slow_head(start: Start) -> None:
    from tests.deployments.ingress.scripted import Scripted, reply

    speaker = Scripted()
    speaker.script = reply(4, 1, pause_s=0.2)
    service = await start(speaker, header_timeout_s=0.3)
    assert (await service.ask()).status_code == 200


async def test_connections_beyond_the_limit_are_told_to_come_back(start: Start) -> None:
    service = await start(max_connections=2)
    idle = [await asyncio.open_connection("127.0.0.1", service.server.port) for _ in range(2)]
    status, headers, told = await answer(service)
    assert (status, told["error"]["code"]) == (429, "overloaded")
    assert headers["retry-after"] == "1"
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(20):
        while (await service.http.get("/healthz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_what_is_no_http_is_told_so_in_our_words(service: Service) -> None:
    status, _, told = await answer(service, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9)
    assert (status, told["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/nothing", "/", "/page/talk.js"])
async def test_every_answer_says_how_it_is_to_be_kept_and_shown(service: Service, path: str) -> None:
    headers = (await service.http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers.get_list("content-security-policy")
    assert len(policy) == 1
    assert "frame-ancestors 'none'" in policy[0]
    assert "unsafe" not in policy[0]
    page = headers["content-type"].startswith("text/") and path != "/healthz"
    assert headers["cache-control"] == ("no-cache" if page else "no-store")
