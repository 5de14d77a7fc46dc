"""What a session tells, in the contract's words."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from deployments.ingress.rpc.status import duration, status_of
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.session.events import (
    AudioCommitted,
    Delta,
    Event,
    ResponseDone,
    ResponseStarted,
    ResponseStatus,
    SpeechStarted,
    SpeechStopped,
)

FINISH: dict[ResponseStatus, pb.FinishReason] = {
    "completed": pb.FINISH_REASON_COMPLETED,
    "incomplete": pb.FINISH_REASON_LENGTH,
    "cancelled": pb.FINISH_REASON_CANCELLED,
    "failed": pb.FINISH_REASON_FAILED,
}


def spell(event: Event) -> pb.ConverseResponse | None:
    """None for what the contract has no word for."""
    match event:
        case Delta():
            delta = pb.ResponseDelta(response_id=event.response.id, text=event.text, audio=event.audio)
            return pb.ConverseResponse(response_delta=delta)
        case SpeechStarted():
            return pb.ConverseResponse(speech_started=pb.SpeechStarted(offset=duration(event.start_ms / 1000)))
        case SpeechStopped():
            return pb.ConverseResponse(speech_stopped=pb.SpeechStopped(offset=duration(event.end_ms / 1000)))
        case AudioCommitted():
            return pb.ConverseResponse(audio_committed=pb.AudioCommitted(message_id=event.item_id))
        case ResponseStarted():
            info = event.response
            started = pb.ResponseStarted(response_id=info.id, metadata=info.metadata or {})
            return pb.ConverseResponse(response_started=started)
        case ResponseDone():
            return pb.ConverseResponse(response_done=done(event))
        case _:
            return None


def done(event: ResponseDone) -> pb.ResponseDone:
    info, usage, report = event.response, event.usage, event.report
    finish = pb.FINISH_REASON_INTERRUPTED if event.reason == "turn_detected" else FINISH[event.status]
    told = pb.ResponseDone(
        response_id=info.id,
        finish_reason=finish,
        usage=pb.Usage(
            input_tokens=usage.prompt_tokens,
            input_audio_tokens=usage.prompt_audio_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.text_tokens + usage.audio_tokens,
            output_audio_tokens=usage.audio_tokens,
        ),
        statistics=pb.Statistics(
            audio=duration(report["audio_s"]), real_time_factor=report["rtf"] or 0.0, seed=report["seed"]
        ),
        metadata=info.metadata or {},
    )
    if report["first_audio_s"] is not None:
        told.statistics.first_audio.CopyFrom(duration(report["first_audio_s"]))
    for name, spent_s in report["stages"].items():
        told.statistics.stages[name].CopyFrom(duration(spent_s))
    if (provenance := report["provenance"]) is not None:
        told.provenance.CopyFrom(_provenance(provenance))
    if event.error is not None:
        told.status.CopyFrom(status_of(event.error, info.id))
    return told


def _provenance(told: Mapping[str, Any]) -> pb.Provenance:
    return pb.Provenance(
        model=told["model"],
        voice=told["voice"],
        created=Timestamp(seconds=told["created_at"]),
        tenant=told["tenant"],
        response_id=told["response"],
        audio_sha256=told["audio"]["sha256"] if told["audio"] else "",
        jws=told["jws"],
    )


def generated(told: pb.ConverseResponse) -> pb.GenerateResponse | None:
    """What Generate says of it; None for what is Converse's alone."""
    name = told.WhichOneof("event")
    if name not in pb.GenerateResponse.DESCRIPTOR.fields_by_name:
        return None
    content: Message = getattr(told, name)
    return pb.GenerateResponse(**{name: content})
