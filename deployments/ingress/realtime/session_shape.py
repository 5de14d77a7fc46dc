"""The session object: what clients ask for, merged, and made into what this server does.

What the model cannot do, or need not be told, is set to what is so, and session.updated shows it: never an error. What
is wrong in itself, a threshold that is a word or a voice that does not exist, is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chroma_models.errors import InvalidRequest
from chroma_models.types import EncodedVoice
from deployments.ingress.live_audio import ALAW_8K, MULAW_8K, PCM_24K, AudioFormat
from deployments.ingress.openai_chat import FRAME_S, ReferenceVoice
from deployments.ingress.openai_parse import told
from deployments.ingress.session.settings import (
    LEAST_SILENCE_MS,
    LONGEST_MS,
    Draw,
    SessionSettings,
    Truncation,
    TurnDetection,
)

Json = dict[str, Any]

FORMATS = {"audio/pcm": PCM_24K, "audio/pcmu": MULAW_8K, "audio/pcma": ALAW_8K}
OPENAI_VOICES = {"alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse"}
EAGERNESS_MS = {"low": 1500, "medium": 800, "auto": 800, "high": 500}  # of silence; shorter splits at commas
LONGEST_IDLE_MS = 3_600_000
SECTIONS = {"audio", "input", "output", "chroma"}  # they hold choices and are none
RESPONSE_FIELDS = ("instructions", "output_modalities", "audio", "max_output_tokens", "chroma")


class Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class DetectionShape(Lenient):
    type: str = "server_vad"
    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    idle_timeout_ms: int | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None
    eagerness: Literal["low", "medium", "high", "auto"] | None = None


class FormatShape(Lenient):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None


class InputShape(Lenient):
    format: FormatShape | None = None
    turn_detection: DetectionShape | None = None


class OutputShape(Lenient):
    format: FormatShape | None = None
    voice: str | ReferenceVoice | Json | None = None


class AudioShape(Lenient):
    input: InputShape = InputShape()
    output: OutputShape = OutputShape()


class RetentionShape(Lenient):
    type: Literal["retention_ratio"]
    retention_ratio: float = Field(ge=0, le=1)


class SessionExtension(BaseModel):
    """Our extension `chroma`, as chat completions has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=0, le=1 << 20)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    text_temperature: float | None = Field(None, ge=0, le=2)
    max_reply_s: float | None = Field(None, ge=FRAME_S)


class Wanted(Lenient):
    """A session object after merging, as far as it matters here."""

    type: str = "realtime"
    instructions: str | None = None
    output_modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioShape = AudioShape()
    max_output_tokens: int | Literal["inf"] | None = None
    truncation: Literal["auto", "disabled"] | RetentionShape | None = None
    chroma: SessionExtension = SessionExtension()


@dataclass(frozen=True)
class SessionShape:
    """One session's effective settings, as clients see them."""

    model: str
    wanted: Wanted

    @classmethod
    def default(cls, model: str) -> "SessionShape":
        return cls(model, Wanted(audio=AudioShape(input=InputShape(turn_detection=DetectionShape()))))

    def updated(self, update: Mapping[str, Any], param: str = "session") -> "SessionShape":
        """Merged deeply: only what is named changes, and null turns off. Raises InvalidRequest."""
        if update.get("type", "realtime") != "realtime":
            raise InvalidRequest("This server speaks: sessions are of type 'realtime'.", f"{param}.type")
        merged = _merged(self.wanted.model_dump(exclude_none=True), update)
        try:
            wanted = Wanted.model_validate(merged)
        except ValidationError as error:
            fault = told(error, merged)
            raise InvalidRequest(fault.message, f"{param}.{fault.param}") from None
        for name, form in (("input", wanted.audio.input.format), ("output", wanted.audio.output.format)):
            if form is not None and form.type == "audio/pcm" and form.rate not in (None, PCM_24K.rate_hz):
                raise InvalidRequest("audio/pcm is 24000 Hz here, as it is in the API.", f"{param}.audio.{name}.format")
        if isinstance(wanted.audio.output.voice, dict) and not isinstance(wanted.audio.output.voice.get("id"), str):
            raise InvalidRequest("A voice is a name, or an object with its id.", f"{param}.audio.output.voice")
        return SessionShape(self.model, wanted)

    def for_response(self, params: Mapping[str, Any]) -> "SessionShape":
        """With what a response has of its own."""
        own = {key: params[key] for key in RESPONSE_FIELDS if key in params}
        if isinstance(own.get("audio"), dict):
            own["audio"] = {key: value for key, value in own["audio"].items() if key == "output"}
        return self.updated(own, "response")

    @property
    def voice(self) -> str | ReferenceVoice:
        """As VoiceBook resolves it. OpenAI's own names mean the built-in voice."""
        voice = self.wanted.audio.output.voice
        if isinstance(voice, dict):
            return str(voice["id"])
        return "default" if voice is None or (isinstance(voice, str) and voice in OPENAI_VOICES) else voice

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else "reference"

    @property
    def speaks(self) -> bool:
        return self.wanted.output_modalities is None or "audio" in self.wanted.output_modalities

    def settings(self, voice: EncodedVoice | None) -> SessionSettings:
        """voice: what `voice` resolved to."""
        wanted, chroma = self.wanted, self.wanted.chroma
        tokens = wanted.max_output_tokens
        truncation = wanted.truncation
        return SessionSettings(
            instructions=wanted.instructions or "",
            voice=voice,
            voice_name=self.voice_name,
            input=_format(wanted.audio.input.format),
            output=_format(wanted.audio.output.format),
            speaks=self.speaks,
            turn_detection=_detection(wanted.audio.input.turn_detection),
            max_text_tokens=max(1, tokens) if isinstance(tokens, int) else None,
            max_reply_s=chroma.max_reply_s,
            draw=Draw(chroma.seed, chroma.temperature, chroma.top_k, chroma.text_temperature),
            truncation=Truncation("auto", truncation.retention_ratio)
            if isinstance(truncation, RetentionShape)
            else Truncation(truncation or "auto"),
        )

    def told(self) -> Json:
        """The whole session object, ids and times apart."""
        wanted = self.wanted
        truncation = wanted.truncation
        return {
            "type": "realtime",
            "object": "realtime.session",
            "model": self.model,
            "instructions": wanted.instructions or "",
            "output_modalities": self.told_modalities(),
            "audio": {
                "input": {
                    "format": told_format(_format(wanted.audio.input.format)),
                    "noise_reduction": None,
                    "transcription": None,
                    "turn_detection": _told_detection(wanted.audio.input.turn_detection),
                },
                "output": {**self.told_output(), "speed": 1.0},
            },
            "max_output_tokens": self.told_tokens(),
            "tools": [],
            "tool_choice": "none",
            "tracing": None,
            "prompt": None,
            "include": None,
            "truncation": truncation.model_dump() if isinstance(truncation, RetentionShape) else truncation or "auto",
            "chroma": wanted.chroma.model_dump(),
        }

    def told_modalities(self) -> list[str]:
        return ["audio"] if self.speaks else ["text"]

    def told_tokens(self) -> int | str:
        tokens = self.wanted.max_output_tokens
        return max(1, tokens) if isinstance(tokens, int) else "inf"

    def told_output(self) -> Json:
        return {"format": told_format(_format(self.wanted.audio.output.format)), "voice": self.voice_name}


def told_format(form: AudioFormat) -> Json:
    name = next(name for name, known in FORMATS.items() if known == form)
    return {"type": name, "rate": form.rate_hz} if form == PCM_24K else {"type": name}


def _format(shape: FormatShape | None) -> AudioFormat:
    return FORMATS[shape.type] if shape else PCM_24K


def _detection(shape: DetectionShape | None) -> TurnDetection | None:
    if shape is None:
        return None
    plain = TurnDetection()
    common = {
        "create_response": plain.create_response if shape.create_response is None else shape.create_response,
        "interrupt_response": plain.interrupt_response
        if shape.interrupt_response is None
        else shape.interrupt_response,
    }
    if shape.type == "semantic_vad":
        return TurnDetection(silence_duration_ms=EAGERNESS_MS[shape.eagerness or "auto"], **common)
    return TurnDetection(
        threshold=_clamped(shape.threshold, plain.threshold, 0.0, 1.0),
        prefix_padding_ms=int(_clamped(shape.prefix_padding_ms, plain.prefix_padding_ms, 0, LONGEST_MS)),
        silence_duration_ms=int(
            _clamped(shape.silence_duration_ms, plain.silence_duration_ms, LEAST_SILENCE_MS, LONGEST_MS)
        ),
        idle_timeout_ms=None
        if shape.idle_timeout_ms is None
        else int(_clamped(shape.idle_timeout_ms, 0, LEAST_SILENCE_MS, LONGEST_IDLE_MS)),
        **common,
    )


def _told_detection(shape: DetectionShape | None) -> Json | None:
    found = _detection(shape)
    if shape is None or found is None:
        return None
    common: Json = {"create_response": found.create_response, "interrupt_response": found.interrupt_response}
    if shape.type == "semantic_vad":
        return {"type": "semantic_vad", "eagerness": shape.eagerness or "auto", **common}
    return {
        "type": "server_vad",
        "threshold": found.threshold,
        "prefix_padding_ms": found.prefix_padding_ms,
        "silence_duration_ms": found.silence_duration_ms,
        "idle_timeout_ms": found.idle_timeout_ms,
        **common,
    }


def _clamped(value: float | None, otherwise: float, least: float, most: float) -> float:
    return otherwise if value is None else min(max(value, least), most)


def _merged(base: Json, update: Mapping[str, Any]) -> Json:
    """A dict of another type than before (turn detection, format) replaces the old one. null turns off."""
    merged = dict(base)
    for key, value in update.items():
        old = base.get(key)
        if value is None and key in SECTIONS:
            continue
        merged[key] = value
        if isinstance(value, Mapping) and isinstance(old, dict) and key != "voice":
            kind = old.get("type")
            if value.get("type", kind) == kind:
                merged[key] = _merged(old, value)
    return merged
