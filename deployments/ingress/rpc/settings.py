"""SessionConfig, and the session settings it stands for."""

import math
from dataclasses import replace
from functools import partial

from google.protobuf.message import Message

from chroma_models.errors import InvalidAudio, InvalidRequest, InvalidVoice, TooLarge, UnknownModel
from chroma_models.types import EncodedVoice
from deployments.ingress.audio_in import encode_base64
from deployments.ingress.callers import Caller
from deployments.ingress.openai_chat import FRAME_S, ReferenceClip, ReferenceVoice
from deployments.ingress.rpc.formats import clip_file, live_format, told_format
from deployments.ingress.rpc.status import duration, seconds
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.services import SEEDS, Services
from deployments.ingress.session.settings import (
    LEAST_SILENCE_MS,
    LONGEST_MS,
    Draw,
    SessionSettings,
    TurnDetection,
)
from deployments.ingress.voices import BUILT_IN_NAME, REFERENCE

MOST_K = 1 << 20


async def settings_of(config: pb.SessionConfig, services: Services, caller: Caller) -> SessionSettings:
    """Raises InvalidRequest and its kin with the field at fault, UnknownModel, UnknownVoice."""
    known = services.config.model_id
    if config.model not in ("", known):
        raise UnknownModel(
            f"The model '{config.model[:64]}' does not exist; this server has '{known}'.", "config.model"
        )
    most_chars = services.config.session.max_text_chars
    if len(config.instructions) > most_chars:
        raise TooLarge(f"Instructions hold at most {most_chars} characters.", "config.instructions")
    settings = SessionSettings(
        instructions=config.instructions,
        input=live_format(config.input_audio, "config.input_audio"),
        output=live_format(config.output_audio, "config.output_audio"),
        speaks=not config.omit_audio,
        turn_detection=None if config.turn_detection.disabled else _detection(config.turn_detection),
        max_text_tokens=_whole(config, "max_text_tokens", "config", 1),
        max_reply_s=_span_s(config, "max_reply", "config", FRAME_S, math.inf),
        draw=_draw(config.sampling),
    )
    voice, name = await _voice(config, services, caller)
    return replace(settings, voice=voice, voice_name=name)


def told_config(settings: SessionSettings, model: str) -> pb.SessionConfig:
    """What is in force. A voice that came as a clip is not sent back."""
    told = pb.SessionConfig(
        model=model,
        voice_id=settings.voice_name,
        instructions=settings.instructions,
        input_audio=told_format(settings.input),
        output_audio=told_format(settings.output),
        turn_detection=_told_detection(settings.turn_detection),
        sampling=_told_draw(settings.draw),
        omit_audio=not settings.speaks,
    )
    if settings.max_text_tokens is not None:
        told.max_text_tokens = settings.max_text_tokens
    if settings.max_reply_s is not None:
        told.max_reply.CopyFrom(duration(settings.max_reply_s))
    return told


async def _voice(config: pb.SessionConfig, services: Services, caller: Caller) -> tuple[EncodedVoice | None, str]:
    if config.WhichOneof("voice") != "reference_voice":
        if config.voice_id in ("", BUILT_IN_NAME):
            return None, BUILT_IN_NAME
        return await services.voices.resolve(config.voice_id, caller, "config.voice_id"), config.voice_id
    try:
        wanted = await services.off_loop(partial(_reference, config.reference_voice))
        return await services.voices.resolve(wanted, caller), REFERENCE
    except (InvalidVoice, InvalidAudio, TooLarge) as error:
        raise type(error)(error.message, "config.reference_voice") from None


def _reference(voice: pb.ReferenceVoice) -> ReferenceVoice:
    data, form = clip_file(voice.clip, "config.reference_voice.clip")
    return ReferenceVoice(reference=ReferenceClip(data=encode_base64(data), format=form), transcript=voice.transcript)


def _draw(sampling: pb.Sampling) -> Draw:
    return Draw(
        seed=sampling.seed & SEEDS if sampling.HasField("seed") else None,
        temperature=_share(sampling, "temperature", "config.sampling", 2.0),
        top_k=_whole(sampling, "top_k", "config.sampling", 0, MOST_K),
        text_temperature=_share(sampling, "text_temperature", "config.sampling", 2.0),
    )


def _told_draw(draw: Draw) -> pb.Sampling:
    return pb.Sampling(
        temperature=draw.temperature, top_k=draw.top_k, seed=draw.seed, text_temperature=draw.text_temperature
    )


def _detection(wanted: pb.TurnDetection) -> TurnDetection:
    plain, where = TurnDetection(), "config.turn_detection"
    threshold = _share(wanted, "threshold", where, 1.0)
    silence_s = _span_s(wanted, "silence", where, LEAST_SILENCE_MS / 1000, LONGEST_MS / 1000)
    padding_s = _span_s(wanted, "prefix_padding", where, 0.0, LONGEST_MS / 1000)
    return TurnDetection(
        threshold=plain.threshold if threshold is None else threshold,
        silence_duration_ms=plain.silence_duration_ms if silence_s is None else round(1000 * silence_s),
        prefix_padding_ms=plain.prefix_padding_ms if padding_s is None else round(1000 * padding_s),
        create_response=not wanted.HasField("create_response") or wanted.create_response,
        interrupt_response=not wanted.HasField("interrupt_response") or wanted.interrupt_response,
    )


def _told_detection(detection: TurnDetection | None) -> pb.TurnDetection:
    if detection is None:
        return pb.TurnDetection(disabled=True)
    return pb.TurnDetection(
        threshold=detection.threshold,
        silence=duration(detection.silence_duration_ms / 1000),
        prefix_padding=duration(detection.prefix_padding_ms / 1000),
        create_response=detection.create_response,
        interrupt_response=detection.interrupt_response,
    )


def _share(message: Message, name: str, where: str, most: float) -> float | None:
    """An optional number of 0 to most."""
    if not message.HasField(name):
        return None
    value = float(getattr(message, name))
    if not 0 <= value <= most:
        raise InvalidRequest(f"A {name} of {value:g} cannot be; use 0 to {most:g}.", f"{where}.{name}")
    return value


def _whole(message: Message, name: str, where: str, least: int, most: int | None = None) -> int | None:
    """An optional whole number."""
    if not message.HasField(name):
        return None
    value = int(getattr(message, name))
    if value < least or (most is not None and value > most):
        fine = f"at least {least}" if most is None else f"{least} to {most}"
        raise InvalidRequest(f"A {name} of {value} cannot be; use {fine}.", f"{where}.{name}")
    return value


def _span_s(message: Message, name: str, where: str, least_s: float, most_s: float) -> float | None:
    """An optional duration, in seconds."""
    if not message.HasField(name):
        return None
    value_s = seconds(getattr(message, name))
    if not least_s <= value_s <= most_s:
        fine = f"at least {least_s:g} s" if math.isinf(most_s) else f"{least_s:g} to {most_s:g} s"
        raise InvalidRequest(f"A {name} of {value_s:g} s cannot be; use {fine}.", f"{where}.{name}")
    return value_s
