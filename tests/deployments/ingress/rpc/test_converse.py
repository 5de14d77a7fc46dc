"""Converse: a live conversation."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from chroma_models.errors import StageUnavailable
from chroma_models.types import Audio, Text
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from tests.deployments.graph import QUESTION
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.rpc.client import Talk, details, refusal, user
from tests.deployments.ingress.rpc.conftest import Dial
from tests.deployments.ingress.scripted import items, reply, spoken_pcm, until

PCM = np.rint(spoken_pcm(10) * 32768).astype("<i2").tobytes()
SLOW = reply(frames=1000, group=1, pause_s=0.02)


def question(silence_s: float = 1.0) -> bytes:
    """The spoken question that comes along, int16 at its own rate of 16 kHz, and silence."""
    samples, rate_hz = soundfile.read(QUESTION, dtype="int16")
    assert rate_hz == 16_000
    return samples.tobytes() + bytes(2 * int(silence_s * rate_hz))


MICROPHONE = pb.AudioConfig(sample_rate_hertz=16_000)


async def test_two_turns_and_the_rest_is_heard_after_a_half_close(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech, instructions="Be kind.")
    await talk.say("hello")
    first = await talk.one("response_done")
    await talk.say("and then?")
    await talk.end()
    second = await talk.one("response_done", 2)
    assert await talk.call.code() == grpc.StatusCode.OK
    for done in (first, second):
        assert done.finish_reason == pb.FINISH_REASON_COMPLETED
        assert talk.audio(done.response_id) == PCM
        assert talk.text(done.response_id) == "It is sunny by the"
    assert [message.role for message in service.speaker.turns[1].messages] == ["system", "user", "assistant", "user"]
    assert service.speaker.turns[1].messages[2].parts == (Text("It is sunny by the"),)
    assert service.speaker.turns[0].affinity == service.speaker.turns[1].affinity
    assert talk.kinds[:2] == ["session_ready", "response_started"]
    await until(lambda: service.app.health.live == 0)


async def test_a_ready_session_tells_what_is_in_force(speech: Any) -> None:
    talk = await Talk.open(speech, turn_detection=pb.TurnDetection(threshold=0.25), max_text_tokens=7)
    ready = await talk.one("session_ready")
    told = ready.config
    assert ready.session_id.startswith("sess_")
    assert ready.longest.seconds == 3600
    assert (told.model, told.voice_id, told.max_text_tokens) == ("chroma", "default", 7)
    assert told.input_audio.encoding == pb.AUDIO_ENCODING_LINEAR16
    assert told.input_audio.sample_rate_hertz == 24_000
    assert told.turn_detection.threshold == 0.25
    assert told.turn_detection.silence.ToMilliseconds() == 500
    assert told.turn_detection.create_response
    mulaw = pb.AudioConfig(encoding=pb.AUDIO_ENCODING_MULAW)
    await talk.send(config=pb.SessionConfig(output_audio=mulaw, turn_detection=pb.TurnDetection(disabled=True)))
    again = (await talk.one("session_ready", 2)).config
    assert again.output_audio.sample_rate_hertz == 8000
    assert again.turn_detection.disabled
    assert not again.HasField("max_text_tokens")
    await talk.end()


async def test_committed_audio_is_what_the_model_hears(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech, input_audio=MICROPHONE)
    pcm = question(0)
    for start in range(0, len(pcm), 2560):
        await talk.send(audio=pcm[start : start + 2560])
    await talk.send(commit_audio=pb.CommitAudio())
    await talk.one("audio_committed")
    await talk.send(create_response=pb.CreateResponse())
    await talk.end()
    (part,) = service.speaker.turns[0].messages[0].parts
    assert isinstance(part, Audio)
    assert part.pcm == pcm


async def test_the_server_hears_when_somebody_has_spoken_and_answers(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech, input_audio=MICROPHONE, turn_detection=pb.TurnDetection())
    await talk.send(audio=question())
    await talk.one("response_done")
    assert talk.kinds[:6] == [
        "session_ready",
        "speech_started",
        "speech_stopped",
        "audio_committed",
        "response_started",
        "response_delta",
    ]
    started, stopped = talk.all("speech_started")[0].offset, talk.all("speech_stopped")[0].offset
    assert 0 <= started.ToMilliseconds() < stopped.ToMilliseconds()
    await talk.end()
    assert len(service.speaker.turns) == 1


async def test_who_half_closes_while_speaking_is_answered(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech, input_audio=MICROPHONE, turn_detection=pb.TurnDetection(silence=Duration(seconds=9)))
    await talk.send(audio=question(0.2))
    await talk.end()
    assert talk.all("response_done")[0].finish_reason == pb.FINISH_REASON_COMPLETED
    assert len(service.speaker.turns) == 1


async def test_speaking_interrupts(service: Service, speech: Any) -> None:
    service.speaker.script = SLOW
    talk = await Talk.open(speech, input_audio=MICROPHONE, turn_detection=pb.TurnDetection(create_response=False))
    await talk.say("hello")
    await talk.one("response_delta")
    await talk.send(audio=question())
    done = await talk.one("response_done")
    assert done.finish_reason == pb.FINISH_REASON_INTERRUPTED
    await service.speaker.all_closed()
    await talk.one("speech_stopped")
    assert talk.told[-1].WhichOneof("event") != "response_delta"
    talk.call.cancel()


async def test_a_cancel_message_stops_one_response_and_no_audio_follows(service: Service, speech: Any) -> None:
    service.speaker.script = SLOW
    talk = await Talk.open(speech)
    await talk.say("hello")
    await talk.one("response_delta")
    beside = pb.CreateResponse(out_of_band=True, messages=[user("aside")], metadata={"for": "me"})
    await talk.send(create_response=beside)
    started = await talk.one("response_started", 2)
    assert dict(started.metadata) == {"for": "me"}
    main = talk.all("response_started")[0].response_id
    await talk.send(cancel_response=pb.CancelResponse(response_id=main))
    done = await talk.one("response_done")
    assert (done.response_id, done.finish_reason) == (main, pb.FINISH_REASON_CANCELLED)
    heard = len(talk.audio(main))
    await until(lambda: service.speaker.open == 1)
    before = len(talk.audio(started.response_id))
    await until(lambda: len(talk.audio(started.response_id)) > before)  # its sibling goes on
    assert len(talk.audio(main)) == heard
    talk.call.cancel()
    await service.speaker.all_closed()


async def test_what_was_not_heard_is_forgotten(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech)
    await talk.say("hello")
    done = await talk.one("response_done")
    heard = pb.TruncateResponse(response_id=done.response_id, heard=Duration(nanos=170_000_000))
    await talk.send(truncate_response=heard)
    await talk.say("and then?")
    await talk.end()
    assert service.speaker.turns[1].messages[1].parts == (Text("It"),)


async def test_a_response_may_have_instructions_of_its_own(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech, instructions="Be kind.")
    await talk.send(add_message=user())
    await talk.send(create_response=pb.CreateResponse(instructions="Be brief."))
    await talk.end()
    assert service.speaker.turns[0].messages[0].parts == (Text("Be brief."),)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"audio": b"\0\0\0"}, "INVALID_AUDIO", ""),
    ({"audio": bytes(2_000_000)}, "TOO_LARGE", "audio"),
    ({"commit_audio": pb.CommitAudio()}, "INPUT_AUDIO_BUFFER_COMMIT_EMPTY", ""),
    ({"cancel_response": pb.CancelResponse()}, "RESPONSE_CANCEL_NOT_ACTIVE", ""),
    ({"truncate_response": pb.TruncateResponse(response_id="x")}, "INVALID_REQUEST", "truncate_response.response_id"),
    ({"add_message": pb.Message()}, "INVALID_REQUEST", "add_message.role"),
    ({"create_response": pb.CreateResponse(messages=[user()])}, "INVALID_REQUEST", "create_response.messages"),
    ({"create_response": pb.CreateResponse(metadata={"k" * 65: "v"})}, "TOO_LARGE", "create_response.metadata"),
    ({"config": pb.SessionConfig(model="gpt")}, "MODEL_NOT_FOUND", "config.model"),
    ({}, "INVALID_REQUEST", ""),
]


async def test_what_is_refused_is_told_and_the_conversation_goes_on(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech)
    for number, (message, reason, field) in enumerate(REFUSED, 1):
        await talk.send(request_id=f"r{number}", **message)
        error = await talk.one("error", number)
        assert error.request_id == f"r{number}"
        told = details(error.status)
        assert told[ErrorInfo].reason == reason
        if field:
            assert told[BadRequest].field_violations[0].field == field
    await talk.say("hello")
    assert (await talk.one("response_done")).finish_reason == pb.FINISH_REASON_COMPLETED
    await talk.end()


@pytest.mark.parametrize(
    ("first", "code", "field"),
    [
        ({"audio": b"\0\0"}, "INVALID_ARGUMENT", "config"),
        ({}, "INVALID_ARGUMENT", "config"),
        ({"config": pb.SessionConfig(model="gpt")}, "NOT_FOUND", "config.model"),
        (
            {"config": pb.SessionConfig(input_audio=pb.AudioConfig(encoding=42))},  # type: ignore[arg-type]
            "INVALID_ARGUMENT",
            "config.input_audio.encoding",
        ),
    ],
)
async def test_a_conversation_that_begins_wrongly_ends_at_once(
    speech: Any, first: dict[str, Any], code: str, field: str
) -> None:
    call = speech.Converse()
    await call.write(pb.ConverseRequest(**first))
    got, status = await refusal(call)
    assert got.name == code
    assert details(status)[BadRequest].field_violations[0].field == field


async def test_a_conversation_without_a_word_is_refused(speech: Any) -> None:
    call = speech.Converse()
    await call.done_writing()
    assert (await refusal(call))[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_turn_that_fails_leaves_the_conversation(service: Service, speech: Any) -> None:
    talk = await Talk.open(speech)
    service.speaker.script = items(StageUnavailable("The Codec was lost.", 1.0))
    await talk.say("hello")
    done = await talk.one("response_done")
    assert done.finish_reason == pb.FINISH_REASON_FAILED
    assert done.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert RetryInfo in details(done.status)
    service.speaker.script = items(KeyError("/etc/secret"))
    await talk.say("again")
    done = await talk.one("response_done", 2)
    assert "secret" not in str(done)
    assert done.status.code == grpc.StatusCode.INTERNAL.value[0]
    service.speaker.script = reply()
    await talk.say("again")
    assert (await talk.one("response_done", 3)).finish_reason == pb.FINISH_REASON_COMPLETED
    await talk.end()


async def test_a_client_that_cancels_or_runs_out_of_time_leaves_nothing(service: Service, speech: Any) -> None:
    service.speaker.script = SLOW
    talks = [await Talk.open(speech), await Talk.open(speech, deadline_s=1.0)]
    for talk in talks:
        await talk.say("hello")
        await talk.one("response_delta")
    talks[0].call.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await talks[1].listening
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await service.speaker.all_closed()
    await until(lambda: service.app.health.live == 0)


async def test_a_session_ends_in_time(start: Start, dial: Dial) -> None:
    service = await start(session={"max_session_s": 0.5})
    talk = await Talk.open(await dial(service))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await talk.listening
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "open a new one" in caught.value.details()


async def test_a_drain_waits_for_the_turn_and_then_sends_the_client_elsewhere(start: Start, dial: Dial) -> None:
    service = await start(drain_wait_s=20.0)
    service.speaker.script = reply(frames=40, group=2, pause_s=0.03)
    speech = await dial(service)
    busy, idle = await Talk.open(speech), await Talk.open(speech)
    await busy.say("hello")
    await busy.one("response_delta")
    await asyncio.gather(service.server.drain(), busy.listening, idle.listening, return_exceptions=True)
    done = await busy.one("response_done")
    assert done.finish_reason == pb.FINISH_REASON_COMPLETED
    assert len(busy.audio(done.response_id)) == 40 * 1920 * 2
    for talk in (busy, idle):
        assert await talk.call.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await idle.listening
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert RetryInfo in details(status)


async def test_many_conversations_hear_nothing_of_each_other(service: Service, speech: Any) -> None:
    service.speaker.by_word = {f"w{i}": reply(frames=6 + i, group=2, pause_s=0.01) for i in range(8)}
    talks = await asyncio.gather(*(Talk.open(speech) for _ in range(8)))
    for i, talk in enumerate(talks):
        await talk.say(f"w{i}")
    await asyncio.gather(*(talk.end() for talk in talks))
    for i, talk in enumerate(talks):
        (done,) = talk.all("response_done")
        assert {chunk.response_id for chunk in talk.all("response_delta")} == {done.response_id}
        assert len(talk.audio(done.response_id)) == (6 + i) * 1920 * 2
