"""The shape of POST /v1/chat/completions, as OpenAI's clients send it, with our documented extensions.

Extensions: `audio.voice` as an object with a reference clip and its transcript; `top_k`; `chroma`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from chroma_models.errors import InvalidRequest
from chroma_models.types import FRAMES_PER_S
from deployments.ingress.audio_in import InputFormat
from deployments.ingress.audio_out import OutputFormat

FRAME_S = 1 / FRAMES_PER_S  # the shortest reply: an empty one is no file a player opens


class Shape(BaseModel):
    """Strict, so that a number in quotes is told and not guessed; unknown fields are told by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Shape):
    type: Literal["text"]
    text: str


class InputAudio(Shape):
    data: str = Field(repr=False)
    format: InputFormat


class AudioPart(Shape):
    type: Literal["input_audio"]
    input_audio: InputAudio


class RefusalPart(Shape):
    type: Literal["refusal"]
    refusal: str


def _string_or_list(value: object) -> str:
    return "string" if isinstance(value, str) else "list"


Words = Annotated[
    Annotated[str, Tag("string")] | Annotated[list[TextPart], Tag("list")], Discriminator(_string_or_list)
]
HeardPart = Annotated[TextPart | AudioPart, Field(discriminator="type")]
Heard = Annotated[
    Annotated[str, Tag("string")] | Annotated[list[HeardPart], Tag("list")], Discriminator(_string_or_list)
]
SaidPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
Said = Annotated[Annotated[str, Tag("string")] | Annotated[list[SaidPart], Tag("list")], Discriminator(_string_or_list)]


class SystemMessage(Shape):
    role: Literal["system", "developer"]
    content: Words
    name: str | None = None


class UserMessage(Shape):
    role: Literal["user"]
    content: Heard
    name: str | None = None


class AudioReference(Shape):
    """OpenAI's clients send the whole audio object of a reply back; only its id is read, or its transcript."""

    id: str
    data: str | None = Field(default=None, repr=False)
    expires_at: int | None = None
    transcript: str | None = None


class AssistantMessage(Shape):
    """An earlier reply: its words, or the id of its audio. What a client echoes beside them is read past."""

    role: Literal["assistant"]
    content: Said | None = None
    audio: AudioReference | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class ReferenceClip(Shape):
    data: str = Field(repr=False)
    format: InputFormat


class ReferenceVoice(Shape):
    """Our extension: the voice to answer in, as a clip and the words spoken in it."""

    reference: ReferenceClip
    transcript: str


class VoiceId(Shape):
    id: str


def _kind_of_voice(value: object) -> str:
    if isinstance(value, str):
        return "by name"
    return "by id" if isinstance(value, dict) and "id" in value else "by reference"


Voice = Annotated[
    Annotated[str, Tag("by name")] | Annotated[VoiceId, Tag("by id")] | Annotated[ReferenceVoice, Tag("by reference")],
    Discriminator(_kind_of_voice),
]


class AudioOut(Shape):
    voice: Voice = "default"
    format: OutputFormat | None = None  # None: pcm16 when streaming, else wav


class StreamOptions(Shape):
    include_usage: bool = False
    include_obfuscation: bool = False  # read past


class ChatExtension(Shape):
    """Our extension `chroma`: what OpenAI's shape has no field for."""

    max_reply_s: float | None = Field(default=None, ge=FRAME_S, allow_inf_nan=False)
    text_temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    codes: bool = False  # answer with the reply's codes, base64 int16 [frames, 8]


class ChatRequest(Shape):
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioOut | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)  # of the audio codes; 0 is greedy
    top_k: int | None = Field(default=None, ge=0, le=1 << 20)  # of the audio codes; 0 keeps all
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    max_completion_tokens: int | None = Field(default=None, ge=1)  # of text; the audio is bounded by chroma.max_reply_s
    max_tokens: int | None = Field(default=None, ge=1)  # the same, by its old name
    user: str | None = None  # names the session, as prompt_cache_key does
    prompt_cache_key: str | None = None
    chroma: ChatExtension = ChatExtension()

    @model_validator(mode="after")
    def _streams_are_pcm16(self) -> Self:
        if self.stream and self.audio and self.audio.format not in (None, "pcm16"):
            raise InvalidRequest("A streamed reply is pcm16; ask for that format, or do not stream.", "audio.format")
        return self

    @property
    def speaks(self) -> bool:
        """Whether the reply's audio is wanted; asking for an audio format is asking for audio."""
        return "audio" in self.modalities if self.modalities is not None else self.audio is not None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def format(self) -> OutputFormat:
        return (self.audio and self.audio.format) or ("pcm16" if self.stream else "wav")

    @property
    def voice(self) -> ReferenceVoice | str:
        """A voice's name or id, or a clip to answer in the voice of."""
        voice = self.audio.voice if self.audio else "default"
        return voice.id if isinstance(voice, VoiceId) else voice
