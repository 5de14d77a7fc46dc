"""Generate: one conversation in, one answer out."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo

from chroma_models.errors import Overloaded, StageUnavailable
from chroma_models.types import Audio, Text
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.rpc.client import ask, details, heard, refusal, user
from tests.deployments.ingress.rpc.conftest import Dial
from tests.deployments.ingress.scripted import (
    FINGERPRINT,
    file_of,
    items,
    reply,
    spoken_pcm,
    tone,
    until,
)

FRAME = 1920
PCM = np.rint(spoken_pcm(10) * 32768).astype("<i2").tobytes()


async def test_an_answer_comes_in_order_with_all_its_audio(service: Service, speech: Any) -> None:
    told = await heard(speech.Generate(ask(sampling=pb.Sampling(seed=7))))
    kinds = [one.WhichOneof("event") for one in told]
    assert kinds[0] == "response_started"
    assert kinds[-1] == "response_done"
    assert set(kinds[1:-1]) == {"response_delta"}
    assert b"".join(one.response_delta.audio for one in told) == PCM
    assert "".join(one.response_delta.text for one in told) == "It is sunny by the"
    done = told[-1].response_done
    assert done.response_id == told[0].response_started.response_id
    assert done.finish_reason == pb.FINISH_REASON_COMPLETED
    assert (done.usage.output_audio_tokens, done.usage.output_tokens, done.usage.input_tokens) == (10, 15, 100)
    assert done.usage.cached_tokens == 16
    assert done.statistics.seed == 7
    assert done.statistics.audio.ToMilliseconds() == 800
    assert done.statistics.first_audio.ToMicroseconds() > 0
    assert done.statistics.real_time_factor > 0
    assert done.statistics.stages["backbone.prefill"].ToMilliseconds() == 10
    assert not done.HasField("status")
    await service.speaker.all_closed()


async def test_a_turn_is_built_of_all_that_was_said(service: Service, speech: Any) -> None:
    clip = pb.AudioClip(
        content=file_of(tone(16_000, 16_000), 16_000), format=pb.AudioConfig(encoding=pb.AUDIO_ENCODING_WAV)
    )
    messages = [
        pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="Hello."), pb.Part(audio=clip)]),
        pb.Message(role=pb.ROLE_ASSISTANT, parts=[pb.Part(text="Hi.")]),
        user("And now?"),
    ]
    config = {
        "instructions": "Be kind.",
        "sampling": pb.Sampling(temperature=0.5, top_k=3, seed=5, text_temperature=0.25),
        "max_reply": Duration(seconds=4),
        "max_text_tokens": 9,
    }
    await heard(speech.Generate(ask(*messages, **config)))
    (turn,) = service.speaker.turns
    assert [message.role for message in turn.messages] == ["system", "user", "assistant", "user"]
    assert turn.messages[0].parts == (Text("Be kind."),)
    spoken = turn.messages[1].parts[1]
    assert isinstance(spoken, Audio)
    assert np.abs(spoken.samples() - tone(16_000, 16_000)).max() < 1e-4
    assert (turn.sampling.temperature, turn.sampling.top_k, turn.sampling.seed) == (0.5, 3, 5)
    assert turn.sampling.text_temperature == 0.25
    assert (turn.limits.max_reply_s, turn.limits.max_text_tokens) == (4.0, 9)
    await heard(speech.Generate(ask(*messages, user("More?"))))
    assert service.speaker.turns[1].affinity == turn.affinity  # the same conversation, one Reasoner


@pytest.mark.parametrize(
    ("encoding", "rate_hz"),
    [
        (pb.AUDIO_ENCODING_LINEAR16, 0),
        (pb.AUDIO_ENCODING_LINEAR16, 8000),
        (pb.AUDIO_ENCODING_LINEAR16, 48000),
        (pb.AUDIO_ENCODING_MULAW, 0),
        (pb.AUDIO_ENCODING_ALAW, 8000),
    ],
)
async def test_an_answer_comes_in_the_encoding_asked_for(speech: Any, encoding: int, rate_hz: int) -> None:
    told = await heard(speech.Generate(ask(output_audio=pb.AudioConfig(encoding=encoding, sample_rate_hertz=rate_hz))))
    audio = b"".join(one.response_delta.audio for one in told)
    linear = encoding == pb.AUDIO_ENCODING_LINEAR16
    usual_hz = 24_000 if linear else 8_000
    samples = len(audio) // (2 if linear else 1)
    assert abs(samples - 10 * FRAME * (rate_hz or usual_hz) / 24_000) <= 1


@pytest.mark.parametrize("encoding", [pb.AUDIO_ENCODING_LINEAR16, pb.AUDIO_ENCODING_MULAW, pb.AUDIO_ENCODING_ALAW])
async def test_a_clip_without_a_header_is_heard(service: Service, speech: Any, encoding: int) -> None:
    width = 2 if encoding == pb.AUDIO_ENCODING_LINEAR16 else 1
    form = pb.AudioConfig(encoding=encoding, sample_rate_hertz=8000)
    clip = pb.AudioClip(content=bytes(8000 * width), format=form)
    await heard(speech.Generate(ask(pb.Message(role=pb.ROLE_USER, parts=[pb.Part(audio=clip)]))))
    part = service.speaker.turns[0].messages[0].parts[0]
    assert isinstance(part, Audio)
    assert part.seconds == 1.0


async def test_a_voice_may_come_as_a_clip(service: Service, speech: Any) -> None:
    clip = pb.AudioClip(
        content=file_of(tone(4 * 24_000, 24_000), 24_000, "FLAC"),
        format=pb.AudioConfig(encoding=pb.AUDIO_ENCODING_FLAC),
    )
    voice = pb.ReferenceVoice(clip=clip, transcript="The words in it.")
    await heard(speech.Generate(ask(reference_voice=voice)))
    assert service.speaker.turns[0].voice.transcript == "The words in it."


async def test_the_words_alone_may_be_asked_for(speech: Any) -> None:
    told = await heard(speech.Generate(ask(omit_audio=True)))
    assert {one.WhichOneof("event") for one in told} == {"response_started", "response_delta", "response_done"}
    assert told[-1].response_done.usage.output_audio_tokens == 0


async def test_a_reply_cut_at_its_limit_says_so(service: Service, speech: Any) -> None:
    service.speaker.script = reply(reason="max_reply")
    assert (await heard(speech.Generate(ask())))[-1].response_done.finish_reason == pb.FINISH_REASON_LENGTH


def clip(encoding: Any, content: bytes = b"\0\0", rate_hz: int = 0) -> pb.Message:
    form = pb.AudioConfig(encoding=encoding, sample_rate_hertz=rate_hz)
    return pb.Message(role=pb.ROLE_USER, parts=[pb.Part(audio=pb.AudioClip(content=content, format=form))])


def sampling(**fields: Any) -> pb.GenerateRequest:
    return ask(sampling=pb.Sampling(**fields))


def form(**fields: Any) -> pb.AudioConfig:
    return pb.AudioConfig(**fields)


def alone(role: Any, *parts: pb.Part) -> pb.Message:
    return pb.Message(role=role, parts=parts)


BAD: dict[str, list[tuple[pb.GenerateRequest, str]]] = {
    "INVALID_REQUEST": [
        (pb.GenerateRequest(), "messages"),
        (ask(alone(pb.ROLE_USER)), "messages[0].parts"),
        (ask(alone(pb.ROLE_USER, pb.Part())), "messages[0].parts[0]"),
        (ask(alone(pb.ROLE_UNSPECIFIED), user()), "messages[0].role"),
        (ask(user(), alone(pb.ROLE_ASSISTANT)), "messages"),
        (sampling(temperature=-1), "config.sampling.temperature"),
        (sampling(text_temperature=float("nan")), "config.sampling.text_temperature"),
        (sampling(top_k=-1), "config.sampling.top_k"),
        (ask(max_text_tokens=0), "config.max_text_tokens"),
        (ask(max_reply=Duration(seconds=-3)), "config.max_reply"),
        (ask(turn_detection=pb.TurnDetection(threshold=2)), "config.turn_detection.threshold"),
        (ask(turn_detection=pb.TurnDetection(silence=Duration(seconds=100))), "config.turn_detection.silence"),
    ],
    "INVALID_AUDIO": [
        (ask(output_audio=form(encoding=99)), "config.output_audio.encoding"),
        (ask(input_audio=form(encoding=pb.AUDIO_ENCODING_MP3)), "config.input_audio.encoding"),
        (ask(input_audio=form(sample_rate_hertz=7)), "config.input_audio.sample_rate_hertz"),
        (
            ask(output_audio=form(encoding=pb.AUDIO_ENCODING_ALAW, sample_rate_hertz=16_000)),
            "config.output_audio.sample_rate_hertz",
        ),
        (ask(clip(pb.AUDIO_ENCODING_LINEAR16, b"\0\0\0")), "messages[0].parts[0].audio.content"),
        (ask(clip(pb.AUDIO_ENCODING_LINEAR16)), "messages[0].parts[0].audio.content"),
        (ask(clip(pb.AUDIO_ENCODING_WAV, b"RIFF")), "messages[0].parts[0].audio.content"),
        (ask(clip(77)), "messages[0].parts[0].audio.format.encoding"),
        (
            ask(clip(pb.AUDIO_ENCODING_LINEAR16, bytes(2000), 1)),
            "messages[0].parts[0].audio.format.sample_rate_hertz",
        ),
    ],
    "INVALID_VOICE": [(ask(reference_voice=pb.ReferenceVoice()), "config.reference_voice")],
    "MODEL_NOT_FOUND": [(ask(model="gpt"), "config.model")],
    "VOICE_NOT_FOUND": [(ask(voice_id="voice_of_nobody"), "config.voice_id")],
}


@pytest.mark.parametrize("reason", BAD)
async def test_a_bad_request_names_its_field(speech: Any, reason: str) -> None:
    for request, field in BAD[reason]:
        code, status = await refusal(speech.Generate(request))
        assert code.name == ("NOT_FOUND" if reason.endswith("NOT_FOUND") else "INVALID_ARGUMENT")
        assert status.message
        told = details(status)
        assert (told[ErrorInfo].reason, told[BadRequest].field_violations[0].field) == (reason, field)
        assert told[RequestInfo].request_id.startswith("req_")


async def test_a_message_that_is_too_large_is_refused(start: Start, dial: Dial) -> None:
    service = await start(grpc={"max_message_bytes": 10_000})
    speech = await dial(service)
    code, _ = await refusal(speech.Generate(ask(user("x" * 20_000))))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(await heard(speech.Generate(ask()))) > 2


async def test_errors_of_the_graph_keep_their_meaning_and_faults_their_secrets(service: Service, speech: Any) -> None:
    service.speaker.script = items(Overloaded("Full.", 2.5))
    code, status = await refusal(speech.Generate(ask()))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(status)[RetryInfo].retry_delay.ToMilliseconds() == 2500
    service.speaker.script = items(StageUnavailable("Lost.", 1.0))
    assert (await refusal(speech.Generate(ask())))[0] == grpc.StatusCode.UNAVAILABLE
    service.speaker.script = items(KeyError("/etc/secret"))
    code, status = await refusal(speech.Generate(ask(), metadata=(("x-request-id", "mine"),)))
    assert code == grpc.StatusCode.INTERNAL
    assert "secret" not in str(status)
    assert "mine" in status.message
    assert details(status)[ErrorInfo].reason == "INTERNAL_ERROR"


async def test_too_many_calls_are_refused_before_they_are_read(start: Start, dial: Dial) -> None:
    service = await start(grpc={"max_calls": 1})
    service.speaker.script = reply(frames=1000, group=1, pause_s=0.05)
    speech = await dial(service)
    call = speech.Generate(ask())
    await call.read()
    code, status = await refusal(speech.Generate(ask()))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert RetryInfo in details(status)
    call.cancel()
    await service.speaker.all_closed()
    service.speaker.script = reply()

    async def again() -> bool:
        try:
            return bool(await heard(speech.Generate(ask())))
        except grpc.aio.AioRpcError:
            return False

    for _ in range(100):
        if await again():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the place is never free again")


async def test_a_cancel_and_a_deadline_stop_the_turn(service: Service, speech: Any) -> None:
    service.speaker.script = reply(frames=1000, group=1, pause_s=0.05)
    call = speech.Generate(ask())
    await until_audio(call)
    call.cancel()
    await service.speaker.all_closed()
    assert len(service.speaker.turns) == 1
    code, _ = await refusal(speech.Generate(ask(), timeout=0.4))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(service.speaker.turns) == 2
    await service.speaker.all_closed()
    await until(lambda: service.app.health.live == 0)


async def until_audio(call: Any) -> None:
    while (await call.read()).WhichOneof("event") != "response_delta":
        pass


async def test_a_drain_lets_an_answer_end_and_cuts_what_does_not(start: Start, dial: Dial) -> None:
    service = await start(drain_wait_s=3.0)
    service.speaker.by_word = {
        "short": reply(frames=20, group=2, pause_s=0.03),
        "long": reply(frames=9000, group=1, pause_s=0.05),
    }
    speech = await dial(service)
    calls = [speech.Generate(ask(user(word))) for word in ("short", "long")]
    await asyncio.gather(*map(until_audio, calls))
    short, long = asyncio.create_task(heard(calls[0])), asyncio.create_task(refusal(calls[1]))
    await service.server.drain()
    assert (await short)[-1].WhichOneof("event") == "response_done"
    code, status = await long
    assert code == grpc.StatusCode.UNAVAILABLE
    assert RetryInfo in details(status)
    await service.speaker.all_closed()
    assert (await refusal(speech.Generate(ask())))[0] == grpc.StatusCode.UNAVAILABLE


async def test_the_fingerprint_and_the_request_id_are_told_at_once(service: Service, speech: Any) -> None:
    await heard(speech.Generate(ask()))
    assert service.app.health.fingerprint == FINGERPRINT
    call = speech.Generate(ask(), metadata=(("x-request-id", "abc"),))
    told = dict(await call.initial_metadata())
    assert told["x-request-id"] == "abc"
    assert told["x-system-fingerprint"] == service.app.health.system_fingerprint
    await heard(call)


async def test_a_reader_that_never_reads_is_let_go(start: Start, dial: Dial) -> None:
    service = await start(max_send_s=0.5)
    service.speaker.script = reply(frames=20_000, group=50)
    speech = await dial(service)
    call = speech.Generate(ask())
    await until(lambda: service.app.health.live == 1)
    await until(lambda: service.app.health.live == 0)
    await service.speaker.all_closed()
    code, _ = await refusal(call)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
