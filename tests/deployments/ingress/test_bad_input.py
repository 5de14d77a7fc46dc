"""Every kind of bad input gets its typed answer in OpenAI's shape, and a stream beside it hears nothing of it."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import file_of, reply, spoken_pcm, tone, until


def with_rate(rate_hz: int) -> bytes:
    wav = bytearray(file_of(tone(8_000, 8_000), 8_000))
    wav[24:28] = struct.pack("<I", rate_hz)
    return bytes(wav)


def with_nan() -> bytes:
    samples = tone(16_000, 16_000)
    samples[5_000] = np.nan
    return file_of(samples, 16_000, coding="FLOAT")


def flac_of_silence(seconds: int) -> bytes:
    return file_of(np.zeros(seconds * 8_000, np.int16), 8_000, "FLAC")


def heard(data: bytes | str, form: str = "wav") -> dict[str, Any]:
    text = data if isinstance(data, str) else base64.b64encode(data).decode()
    part = {"type": "input_audio", "input_audio": {"data": text, "format": form}}
    return {"messages": [{"role": "user", "content": [part]}]}


def voice(clip: bytes | None, **changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"transcript": "A tone."}
    if clip is not None:
        said["reference"] = {"data": base64.b64encode(clip).decode(), "format": "wav"}
    said.update(changes)
    return {"audio": {"voice": {k: v for k, v in said.items() if v is not None}, "format": "wav"}}


WAV = file_of(tone(16_000, 16_000), 16_000)
CLIP = file_of(tone(24_000, 24_000), 24_000)
AUDIO = "messages[0].content[0].input_audio.data"
USER = {"role": "user", "content": "hello"}

# name: (what is changed in a good request, status, code, param)
BAD: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "empty audio": (heard(b""), 400, "invalid_audio", AUDIO),
    "wav without samples": (heard(file_of(tone(0, 16_000), 16_000)), 400, "invalid_audio", AUDIO),
    "truncated wav": (heard(WAV[: len(WAV) // 2]), 400, "invalid_audio", AUDIO),
    "wav header alone": (heard(WAV[:20]), 400, "invalid_audio", AUDIO),
    "truncated flac": (heard(flac_of_silence(60)[:-200], "flac"), 400, "invalid_audio", AUDIO),
    "truncated mp3": (
        heard(file_of(tone(80_000, 16_000), 16_000, "MP3", "MPEG_LAYER_III")[:4_000], "mp3"),
        400,
        "invalid_audio",
        AUDIO,
    ),
    "wrong base64": (heard("this is not base64!"), 400, "invalid_audio", AUDIO),
    "base64 cut short": (heard(base64.b64encode(WAV).decode()[:-3]), 400, "invalid_audio", AUDIO),
    "base64 of another alphabet": (heard("é" * 400), 400, "invalid_audio", AUDIO),
    "0 Hz": (heard(with_rate(0)), 400, "invalid_audio", AUDIO),
    "1 GHz": (heard(with_rate(10**9)), 400, "invalid_audio", AUDIO),
    "1 Hz": (heard(with_rate(1)), 400, "invalid_audio", AUDIO),
    "NaN samples": (heard(with_nan()), 400, "invalid_audio", AUDIO),
    "infinite samples": (
        heard(file_of(np.full(16_000, np.inf, np.float32), 16_000, coding="FLOAT")),
        400,
        "invalid_audio",
        AUDIO,
    ),
    "four channels": (heard(file_of(np.zeros((9_600, 4), np.int16), 48_000)), 400, "invalid_audio", AUDIO),
    "a 2-hour clip": (heard(flac_of_silence(7_200), "flac"), 413, "too_large", AUDIO),
    "a text file named .wav": (heard(b"Dear Sir or Madam,\n" * 50), 400, "invalid_audio", AUDIO),
    "a flac called wav": (heard(flac_of_silence(1)), 400, "invalid_audio", AUDIO),
    "odd pcm16": (heard(b"\0" * 9_601, "pcm16"), 400, "invalid_audio", AUDIO),
    "an unknown input format": (
        heard(WAV, "aiff"),
        400,
        "invalid_request",
        "messages[0].content[0].input_audio.format",
    ),
    "a voice without transcript": (voice(CLIP, transcript=None), 400, "invalid_voice", "audio.voice.transcript"),
    "a voice with a blank transcript": (voice(CLIP, transcript=" "), 400, "invalid_voice", "audio.voice"),
    "a voice without clip": (voice(None), 400, "invalid_voice", "audio.voice.reference"),
    "an empty voice": (voice(file_of(tone(0, 24_000), 24_000)), 400, "invalid_audio", "audio.voice.reference.data"),
    "a 3,000-frame voice": (
        voice(file_of(np.zeros(3_000 * 640, np.int16), 8_000)),
        400,
        "invalid_voice",
        "audio.voice",
    ),
    "a voice of another name": ({"audio": {"voice": "alloy"}}, 404, "voice_not_found", "audio.voice"),
    "a voice of another id": ({"audio": {"voice": {"id": "voice_1"}}}, 404, "voice_not_found", "audio.voice"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "x"}, USER]}, 400, "invalid_request", "messages[0]"),
    "a role that is missing": ({"messages": [{"content": "x"}]}, 400, "invalid_request", "messages[0]"),
    "a tool's message": ({"messages": [{"role": "tool", "content": "x"}, USER]}, 400, "invalid_request", "messages[0]"),
    "no messages": ({"messages": []}, 400, "invalid_request", "messages"),
    "nothing to answer": (
        {"messages": [USER, {"role": "assistant", "content": "x"}]},
        400,
        "invalid_request",
        "messages",
    ),
    "a reply shorter than a frame": ({"chroma": {"max_reply_s": 0.05}}, 400, "invalid_request", "chroma.max_reply_s"),
    "negative temperature": ({"temperature": -1}, 400, "invalid_request", "temperature"),
    "temperature in quotes": ({"temperature": "0.7"}, 400, "invalid_request", "temperature"),
    "negative top_k": ({"top_k": -1}, 400, "invalid_request", "top_k"),
    "a seed beyond 64 bits": ({"seed": 1 << 70}, 400, "invalid_request", "seed"),
    "no text tokens": ({"max_completion_tokens": 0}, 400, "invalid_request", "max_completion_tokens"),
    "an unknown model": ({"model": "gpt-9"}, 404, "model_not_found", "model"),
    "no model": ({"model": None}, 400, "invalid_request", "model"),
    "an unknown field": ({"colour": "red"}, 400, "invalid_request", "colour"),
    "an unknown field further in": ({"audio": {"loud": True}}, 400, "invalid_request", "audio.loud"),
    "an unknown field of a message": (
        {"messages": [{**USER, "mood": "good"}]},
        400,
        "invalid_request",
        "messages[0].mood",
    ),
    "a part that is unknown": (
        {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
        400,
        "invalid_request",
        "messages[0].content[0]",
    ),
    "a part without its text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        400,
        "invalid_request",
        "messages[0].content[0].text",
    ),
    "an unknown field of a part": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "mood": 1}]}]},
        400,
        "invalid_request",
        "messages[0].content[0].mood",
    ),
    "a number for content": (
        {"messages": [{"role": "user", "content": 5}]},
        400,
        "invalid_request",
        "messages[0].content",
    ),
    "tools": ({"tools": [{"type": "function"}]}, 400, "invalid_request", "tools"),
    "two choices": ({"n": 2}, 400, "invalid_request", "n"),
    "n that is true": ({"n": True}, 400, "invalid_request", "n"),
    "a stop word": ({"stop": "x"}, 400, "invalid_request", "stop"),
    "audio alone": ({"modalities": ["audio"]}, 400, "invalid_request", "modalities"),
    "aac": ({"audio": {"format": "aac"}}, 400, "invalid_request", "audio.format"),
    "a streamed mp3": ({"stream": True, "audio": {"format": "mp3"}}, 400, "invalid_request", "audio.format"),
    "too many messages": ({"messages": [USER] * 600}, 413, "too_large", "messages"),
}


def check_shape(answer: httpx.Response, status: int, code: str, param: str | None) -> None:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error["message"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 20
    assert "Traceback" not in error["message"]
    assert "/" not in error["message"].replace("GET /", "").replace("POST /", "")  # no path


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_told_what_to_change(direct: Service, name: str) -> None:
    changes, status, code, param = BAD[name]
    check_shape(await direct.ask(**changes), status, code, param)
    assert not direct.speaker.turns


RAW: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"hello", 400, "invalid_request"),
    "half of JSON": (b'{"model": "chroma"', 400, "invalid_request"),
    "an empty body": (b"", 400, "invalid_request"),
    "a list": (b"[]", 400, "invalid_request"),
    "a NaN": (b'{"temperature": NaN}', 400, "invalid_request"),
    "a lone surrogate": (b'{"model": "\\ud800"}', 400, "invalid_request"),
    "bytes that are not UTF-8": (b'{"model": "\xff"}', 400, "invalid_request"),
    "17 levels": (b'{"a": ' + b"[" * 17 + b"]" * 17 + b"}", 400, "invalid_request"),
    "100,000 levels": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_request"),
    "a million values": (b'{"a": [' + b"0," * 1_000_000 + b"0]}", 413, "too_large"),
}


@pytest.mark.parametrize("name", RAW)
async def test_a_body_that_is_no_request_is_told_so(direct: Service, name: str) -> None:
    body, status, code = RAW[name]
    check_shape(await direct.http.post("/v1/chat/completions", content=body), status, code, None)


async def test_a_good_stream_is_untouched_by_bad_requests_beside_it(service: Service) -> None:
    service.speaker.by_word["slowly"] = reply(frames=60, pause_s=0.08)
    body = {"messages": [{"role": "user", "content": "slowly please"}], "stream": True, "audio": {}, "model": "chroma"}
    pcm, ended = b"", False

    async def listen() -> None:
        nonlocal pcm, ended
        async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        pcm += base64.b64decode(choice["delta"].get("audio", {}).get("data", ""))

    good = asyncio.create_task(listen())
    await until(lambda: service.speaker.open > 0)
    answers = await asyncio.gather(*(service.ask(**changes) for changes, *_ in BAD.values()))
    assert not good.done()  # it was running all the while
    assert [a.status_code for a in answers] == [status for _, status, _, _ in BAD.values()]
    await good
    assert ended
    assert np.abs(np.frombuffer(pcm, "<i2") / 32768 - spoken_pcm(60)).max() <= 0.5 / 32768 + 1e-9
    assert len(service.speaker.turns) == 1


async def test_a_100_mb_body_is_refused(service: Service) -> None:
    body = heard("A" * 100_000_000)
    with pytest.raises(openai.APIStatusError) as told:
        await service.openai.chat.completions.create(model="chroma", messages=body["messages"])
    assert told.value.status_code == 413
    assert told.value.code == "too_large"


async def test_a_body_of_unknown_length_is_refused_at_the_limit(start: Start) -> None:
    service = await start(max_body_bytes=1 << 20)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1 << 16
            yield b" " * (1 << 16)

    answer = await service.http.post("/v1/chat/completions", content=endless())
    check_shape(answer, 413, "too_large", None)
    assert answer.headers["connection"] == "close"
    assert (await service.ask()).status_code == 200


async def test_a_client_that_announces_too_much_is_refused_before_it_sends(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\nexpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_body_that_does_not_come_is_given_up(start: Start) -> None:
    service = await start(body_timeout_s=0.1, discard_s=0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    writer.close()


async def test_bodies_being_read_share_a_bound(start: Start) -> None:
    service = await start(max_pending_bytes=100_000, max_body_bytes=100_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n" + b" " * 80_000)
    await writer.drain()
    await asyncio.sleep(0.1)
    refused = await service.ask(messages=[{"role": "user", "content": "x" * 50_000}])
    assert refused.status_code == 429
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.1)
    assert (await service.ask(messages=[{"role": "user", "content": "x" * 50_000}])).status_code == 200
    assert reader is not None


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "unknown_url"),
        ("POST", "/v1/completions", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
    ],
)
async def test_wrong_routes_are_told_in_the_same_shape(
    direct: Service, method: str, path: str, status: int, code: str
) -> None:
    answer = await direct.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("allow" in answer.headers) == (status == 405)
