"""Turns that do not end well: hang-ups at every moment, silence, lateness, and errors before and within a stream."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from chroma_models.errors import (
    CheckpointError,
    InvalidAudio,
    Overloaded,
    PromptTooLong,
    StageUnavailable,
    TurnTimeout,
)
from chroma_models.types import Admitted, AudioChunk
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import chunk, finished, items, reply, until

KEEP_ALIVE = AudioChunk((), b"")
ADMITTED = Admitted("x")
ASK: dict[str, Any] = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}]}
SPOKEN = {**ASK, "audio": {}}
FOREVER = 3600.0

MOMENTS: dict[str, Any] = {
    "before admission": items(FOREVER),
    "before the first audio": items(ADMITTED, FOREVER),
    "between two chunks": items(ADMITTED, chunk(0, 1, 9), FOREVER),
    "in the middle of a flood": reply(frames=2000, group=1, pause_s=0.001),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_client_that_hangs_up_cancels_its_turn_and_no_other(
    service: Service, moment: str, stream: bool
) -> None:
    service.speaker.by_word["beside"] = reply(frames=8, group=1, pause_s=0.05)
    service.speaker.script = MOMENTS[moment]
    beside = asyncio.create_task(service.ask(messages=[{"role": "user", "content": "beside"}]))
    body = json.dumps({**SPOKEN, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
    writer.write(head.encode() + body)
    await until(lambda: service.speaker.open >= 2)
    await asyncio.sleep(0.05)
    writer.transport.abort()
    await until(lambda: service.speaker.open <= 1)  # the test's own timeout tells of a turn that goes on
    assert (await beside).status_code == 200
    await service.speaker.all_closed()
    await until(lambda: not service.app.health.live)
    assert reader is not None


async def test_two_hundred_hang_ups_leave_no_task_behind(service: Service) -> None:
    service.speaker.script = reply(frames=1000, group=1, pause_s=0.01)
    body = json.dumps({**SPOKEN, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    before = len(asyncio.all_tasks())

    async def hang_up(after_s: float) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
        writer.write(head.encode() + body)
        await asyncio.sleep(after_s)
        writer.transport.abort()

    for batch in range(10):
        await asyncio.gather(*(hang_up(0.002 * i + 0.001 * batch) for i in range(20)))
    await until(lambda: not service.speaker.open and not service.app.health.live)
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) <= before
    service.speaker.script = reply()
    assert (await service.ask()).status_code == 200


async def test_a_voice_outlives_the_client_that_first_asked_for_it(service: Service) -> None:
    service.speaker.encode_s = 0.3
    first = asyncio.create_task(service.ask())
    await until(lambda: bool(service.speaker.clips))
    second = asyncio.create_task(service.ask())
    await asyncio.sleep(0.05)
    first.cancel()
    assert (await second).status_code == 200
    assert len(service.speaker.clips) == 1


LIMITS: dict[str, tuple[dict[str, float], Any, int, str]] = {
    "admission takes too long": ({"admit_timeout_s": 0.1}, items(FOREVER), 503, "stage_unavailable"),
    "silence after admission": ({"stall_timeout_s": 0.1}, items(ADMITTED, FOREVER), 503, "stage_unavailable"),
    "keep-alives, but no audio": (
        {"first_audio_timeout_s": 0.2},
        items(ADMITTED, *(0.02, KEEP_ALIVE) * 1000),
        504,
        "turn_timeout",
    ),
    "a turn without end": ({"max_turn_s": 0.3}, reply(frames=2000, group=1, pause_s=0.01), 504, "turn_timeout"),
    "silence between chunks": (
        {"stall_timeout_s": 0.1},
        items(ADMITTED, chunk(0, 1, 9), FOREVER),
        503,
        "stage_unavailable",
    ),
    "an end without Finished": ({}, items(ADMITTED, chunk(0, 1, 9)), 503, "stage_unavailable"),
    "frames that got lost": (
        {},
        items(ADMITTED, chunk(0, 1, 9), chunk(2, 1, 9), finished(3)),
        503,
        "stage_unavailable",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_each_limit_ends_a_turn_with_its_own_error(start: Start, name: str) -> None:
    settings, script, status, code = LIMITS[name]
    service = await start(**settings)
    service.speaker.script = script
    answer = await service.ask(audio={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)
    await service.speaker.all_closed()


async def test_keep_alives_reach_a_streaming_client_and_hold_the_turn_open(start: Start) -> None:
    service = await start(stall_timeout_s=0.2)
    service.speaker.script = items(ADMITTED, *(0.1, KEEP_ALIVE) * 5, chunk(0, 2, 2), finished(2))
    lines = await read_lines(service)
    assert lines.count(": keep-alive") == 5
    assert lines[-1] == "data: [DONE]"


async def test_frames_that_come_twice_are_spoken_once(direct: Service) -> None:
    direct.speaker.script = items(ADMITTED, chunk(0, 4, 6), chunk(2, 4, 6), chunk(0, 1, 6), finished(6))
    answer = (await direct.ask(audio={"format": "pcm16"})).json()
    assert answer["chroma"]["audio_s"] == 6 * 0.08
    assert answer["choices"][0]["message"]["audio"]["transcript"] == "It is sunny"
    assert len(answer["choices"][0]["message"]["audio"]["data"]) == 4 * (6 * 1920 * 2 // 3)


async def read_lines(service: Service) -> list[str]:
    async with service.http.stream("POST", "/v1/chat/completions", json={**SPOKEN, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line async for line in response.aiter_lines() if line]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (PromptTooLong("The conversation does not fit; shorten it."), 400, "invalid_request_error"),
        (Overloaded("No slot.", 2.5), 429, "rate_limit_error"),
        (StageUnavailable("The Backbone is away.", 1.0), 503, "server_error"),
        (TurnTimeout("Too slow."), 504, "server_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_errors_before_admission_have_their_own_status(
    direct: Service, error: Exception, status: int, kind: str, stream: bool
) -> None:
    direct.speaker.script = items(error)
    answer = await direct.ask(stream=stream, audio={})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["error"]["message"] == str(error)
    assert answer.headers.get("retry-after") == {429: "3", 503: "1"}.get(status)


async def test_an_error_within_a_stream_is_an_event_and_its_end(service: Service) -> None:
    service.speaker.script = items(ADMITTED, chunk(0, 2, 9), StageUnavailable("The Codec is away.", 1.0))
    lines = await read_lines(service)
    told = json.loads(lines[-1].removeprefix("data: "))
    assert told["error"]["code"] == "stage_unavailable"
    assert told["error"]["message"] == "The Codec is away."
    with pytest.raises(Exception, match="The Codec is away"):
        async for _ in await service.openai.chat.completions.create(
            model="chroma", messages=[{"role": "user", "content": "hi"}], stream=True
        ):
            pass


class Foreign(RuntimeError, InvalidAudio):
    """An error that gained a class on its way, knows its message from its cause, and prints a remote traceback."""

    def __init__(self, cause: InvalidAudio) -> None:
        self.cause = cause
        self.args = (cause,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cause, name)

    def __str__(self) -> str:
        return 'Traceback: File "/srv/secret.py"'


async def test_an_error_that_gained_classes_is_still_known(direct: Service) -> None:
    direct.speaker.script = items(Foreign(InvalidAudio("The clip is odd.", "messages")))
    answer = await direct.ask()
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "The clip is odd.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "invalid_audio",
    }


@pytest.mark.parametrize(
    "error", [ValueError("/srv/secret.py"), CheckpointError("/srv/secret.safetensors"), OSError(2, "/srv")]
)
async def test_a_fault_is_logged_and_told_by_its_request_id_alone(
    direct: Service, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    for script in (items(error), items(ADMITTED, chunk(0, 1, 9), error)):
        direct.speaker.script = script
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            answer = await direct.ask()
        assert answer.status_code == 500
        told = answer.json()["error"]
        assert told["code"] == "internal_error"
        assert "srv" not in answer.text
        assert answer.headers["x-request-id"] in told["message"]
        assert answer.headers["x-request-id"] in caplog.text
        assert "srv" in caplog.text
    direct.speaker.script = items(ADMITTED, chunk(0, 1, 9), error)
    lines = await read_lines(direct)
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "srv" not in "".join(lines)


async def test_a_client_that_takes_nothing_is_left(start: Start) -> None:
    service = await start(max_send_s=0.3)
    service.speaker.script = reply(frames=10_000, group=100)
    async with httpx.AsyncClient(base_url=service.http.base_url, trust_env=False) as slow:
        request = slow.build_request("POST", "/v1/chat/completions", json={**SPOKEN, "stream": True})
        response = await slow.send(request, stream=True)
        assert response.status_code == 200
        await service.speaker.all_closed()
        await response.aclose()
