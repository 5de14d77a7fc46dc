"""The shapes of what is answered. Nothing is validated with them at run time: tests hold every answer against them."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from chroma_models.types import FinishReason
from deployments.ingress.store.tables import Action
from deployments.ingress.tenants import Priority, Scope

T = TypeVar("T")

PERHAPS: Any = Field(default_factory=lambda: None)  # a field that may be missing, and is never null


class ErrorTold(BaseModel):
    """OpenAI's error object. `code` is stable; `param` names the field, or the quota, it is about."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "insufficient_quota", "server_error"]
    param: str | None
    code: str


class Error(BaseModel):
    error: ErrorTold


class ListOf(BaseModel, Generic[T]):
    object: Literal["list"]
    data: list[T]

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return f"{cls.__name__}{params[0].__name__}"


class PageOf(ListOf[T], Generic[T]):
    """Newest first. `last_id` is what `after` takes."""

    has_more: bool
    first_id: str | None
    last_id: str | None


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class AudioHash(BaseModel):
    sha256: str
    of: str
    rate_hz: int


class Statement(BaseModel):
    """What is claimed of a reply. `jws` is the same, signed: that alone counts."""

    model: str
    voice: str
    created_at: int
    tenant: str = Field(description="A keyed hash: the same for all replies to a tenant.")
    response: str
    audio: AudioHash | None
    watermark: str | None
    jws: str


class Report(BaseModel):
    """Our extension: how the reply was made. Times in seconds."""

    seed: int
    first_audio_s: float | None
    audio_s: float
    rtf: float | None
    finish: FinishReason | None
    losses: int = Field(description="Replicas that were lost on the way; the reply went on from where it was.")
    stages: dict[str, float]
    codes: str = PERHAPS  # base64, int16 [frames, 8]; where the request asks for them
    provenance: Statement


class PromptDetails(BaseModel):
    audio_tokens: int
    text_tokens: int
    cached_tokens: int


class CompletionDetails(BaseModel):
    audio_tokens: int
    text_tokens: int
    reasoning_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ReplyAudio(BaseModel):
    id: str
    data: str = Field(description="Base64 of a file in the format asked for.")
    expires_at: int
    transcript: str


class ReplyMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    audio: ReplyAudio = PERHAPS


class Choice(BaseModel):
    index: Literal[0]
    message: ReplyMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    chroma: Report


class DeltaAudio(BaseModel):
    id: str = PERHAPS
    data: str = PERHAPS  # base64 of pcm16 at 24 kHz
    transcript: str = PERHAPS
    expires_at: int = PERHAPS


class Delta(BaseModel):
    role: Literal["assistant"] = PERHAPS
    content: str | None = Field(default_factory=lambda: None)
    refusal: None = Field(default_factory=lambda: None)
    audio: DeltaAudio = PERHAPS


class ChunkChoice(BaseModel):
    index: Literal[0]
    delta: Delta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletionChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage = PERHAPS
    chroma: Report = PERHAPS


class RealtimeSession(BaseModel):
    """The session's effective settings; `session.created` and `session.updated` of a live session tell the same."""

    id: str
    type: Literal["realtime"]
    object: Literal["realtime.session"]
    model: str
    instructions: str
    output_modalities: list[Literal["text", "audio"]]
    audio: dict[str, Any]
    max_output_tokens: int | Literal["inf"]
    tools: list[Any]
    tool_choice: Literal["none"]
    tracing: None
    prompt: None
    include: None
    truncation: Literal["auto", "disabled"] | dict[str, Any]
    chroma: dict[str, Any]


class ClientSecret(BaseModel):
    value: str
    expires_at: int
    session: RealtimeSession


class Consent(BaseModel):
    id: str
    object: Literal["audio.voice_consent"]
    created_at: int
    name: str
    language: str


class DeletedConsent(BaseModel):
    id: str
    object: Literal["audio.voice_consent"]
    deleted: Literal[True]


class Voice(BaseModel):
    id: str
    object: Literal["audio.voice"]
    created_at: int
    name: str
    type: Literal["audio_sample"]
    consent: str
    transcript: str
    audio_s: float


class DeletedVoice(BaseModel):
    id: str
    object: Literal["audio.voice.deleted"]
    deleted: Literal[True]


class AuditEntry(BaseModel):
    id: str
    object: Literal["audio.voice_audit"]
    at: int
    tenant: str
    key_id: str
    action: Action
    consent: str | None
    voice: str | None
    sha256: str | None


class UsageDay(BaseModel):
    object: Literal["usage.day"]
    day: str
    key_id: str
    responses: int
    completed: int
    heard_s: float
    spoken_s: float
    prompt_tokens: int
    text_tokens: int


class Tenant(BaseModel):
    """null: without a limit."""

    id: str
    object: Literal["tenant"]
    created_at: int
    enabled: bool
    streams: int
    audio_s_per_minute: float | None
    audio_s_per_day: float | None
    voices: int
    priority: Priority
    weight: float
    retention_s: int


class ErasedTenant(BaseModel):
    id: str
    object: Literal["tenant.erased"]
    consents: int
    keys: int
    usage: int


class Key(BaseModel):
    id: str
    object: Literal["api_key"]
    tenant: str
    name: str
    scopes: list[Scope]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class NewKeyTold(Key):
    key: str = Field(description="The key itself, told this once.")


class PublicKey(BaseModel):
    crv: Literal["Ed25519"]
    kty: Literal["OKP"]
    x: str
    kid: str
    alg: Literal["EdDSA"]
    use: Literal["sig"]


class PublicKeys(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[PublicKey]


class Probe(BaseModel):
    """The replica's last turn of its own: "ok" or an error's code, and how many seconds ago it ended."""

    outcome: str
    first_audio_s: float | None
    ago_s: float


class Health(BaseModel):
    status: Literal["alive", "ready", "starting", "draining"]
    probe: Probe = PERHAPS
