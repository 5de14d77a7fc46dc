"""Every operation of the HTTP API: what it takes, what it answers, what can go wrong beside what always can."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chroma_models.errors import (
    ChromaError,
    InvalidAudio,
    InvalidRequest,
    InvalidVoice,
    Overloaded,
    PromptTooLong,
    QuotaExceeded,
    TurnTimeout,
    UnknownModel,
    UnknownVoice,
)
from deployments.ingress.admin_routes import ADMIN
from deployments.ingress.errors import UnknownConsent, UnknownKey, UnknownReply, UnknownRoute, UnknownTenant
from deployments.ingress.openai_chat import ChatRequest
from deployments.ingress.openapi import answers as told
from deployments.ingress.provenance.statement import KEYS_PATH
from deployments.ingress.realtime.client_secrets import ExpiresAfter
from deployments.ingress.realtime.session_shape import Wanted
from deployments.ingress.store.tables import LANGUAGE_CHARS, NAME_CHARS
from deployments.ingress.tenants import NewKey, NewTenant, TenantChange
from deployments.ingress.voice_routes import BCP47, MAX_PAGE, PAGE

Errors = tuple[type[ChromaError], ...]

JSON, FORM, EVENTS, TEXT = "application/json", "multipart/form-data", "text/event-stream", "text/plain"
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS)]


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewConsent(Form):
    """A recording in which the speaker agrees; files carry a file name."""

    name: Name
    language: Annotated[str, Field(max_length=LANGUAGE_CHARS, pattern=f"^{BCP47.pattern}$")]
    recording: bytes


class NewVoice(Form):
    """A recording, the words in it, and the id of the consent to it; files carry a file name."""

    name: Name
    consent: Annotated[str, Field(min_length=1, max_length=64)]
    transcript: Annotated[str, Field(min_length=1)]
    audio_sample: bytes
    type: Literal["audio_sample"] = "audio_sample"


class NewName(Form):
    name: Name


class RealtimeSettings(Wanted):
    """What else OpenAI's session objects hold is read past; what cannot be had is set to what is so, and told."""


class NewClientSecret(BaseModel):
    expires_after: ExpiresAfter = ExpiresAfter()
    session: RealtimeSettings = told.PERHAPS


class PageQuery(BaseModel):
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = PAGE
    after: Annotated[str, Field(description="The `last_id` of the page before.")] = told.PERHAPS


class DayQuery(BaseModel):
    start_day: Annotated[str, Field(description="The first, UTC.", pattern=r"^\d{4}-\d\d-\d\d$")] = told.PERHAPS
    end_day: Annotated[str, Field(description="Not among them.", pattern=r"^\d{4}-\d\d-\d\d$")] = told.PERHAPS


@dataclass(frozen=True)
class Operation:
    """answers: by status, content types with a shape each (None: plain words)."""

    method: str
    path: str
    summary: str
    answers: dict[int, dict[str, Any]]
    errors: Errors = ()
    takes: type[BaseModel] | None = None
    body_type: str = JSON
    body_needed: bool = True
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()  # beside the usual ones


def _json(shape: Any, status: int = 200) -> dict[int, dict[str, Any]]:
    return {status: {JSON: shape}}


CONSENTS, VOICES, TENANTS = "/v1/audio/voice_consents", "/v1/audio/voices", ADMIN + "tenants"
KEYS = TENANTS + "/{tenant}/keys"
SPEECH = "Not offered, and answered with what is: this model answers, it does not read aloud."
BAD: Errors = (InvalidRequest,)
BAD_CLIP: Errors = (InvalidAudio, InvalidVoice)
SPOKEN: Errors = (
    *(PromptTooLong, InvalidAudio, InvalidVoice, UnknownModel, UnknownVoice, UnknownReply),
    *(Overloaded, QuotaExceeded, TurnTimeout),
)
AUDIO = [f"{what}-audio-seconds-{window}" for window in ("minute", "day") for what in ("limit", "remaining", "reset")]
RATES = tuple(f"x-ratelimit-{name}" for name in ("limit-streams", "remaining-streams", *AUDIO))

OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "Answer a conversation in words and speech, whole or as server-sent events.",
        {200: {JSON: told.ChatCompletion, EVENTS: told.ChatCompletionChunk}},
        SPOKEN,
        ChatRequest,
        headers=RATES,
    ),
    Operation(
        "POST",
        "/v1/realtime/client_secrets",
        "Make a short-lived key that opens sessions at /v1/realtime, a WebSocket, and nothing else.",
        _json(told.ClientSecret),
        (InvalidAudio, InvalidVoice, UnknownVoice, TurnTimeout),
        NewClientSecret,
        body_needed=False,
    ),
    Operation("GET", "/v1/models", "List the one model.", _json(told.ListOf[told.Model])),
    Operation("GET", "/v1/models/{model}", "The one model.", _json(told.Model), (UnknownModel,)),
    Operation("POST", CONSENTS, "Record a consent.", _json(told.Consent), BAD_CLIP, NewConsent, FORM),
    Operation("GET", CONSENTS, "List consents.", _json(told.PageOf[told.Consent]), BAD, query=PageQuery),
    Operation("GET", CONSENTS + "/{id}", "A consent.", _json(told.Consent), (UnknownConsent,)),
    Operation("POST", CONSENTS + "/{id}", "Rename a consent.", _json(told.Consent), (UnknownConsent,), NewName),
    Operation(
        "DELETE",
        CONSENTS + "/{id}",
        "Delete a consent, and the voices that were made with it.",
        _json(told.DeletedConsent),
        (UnknownConsent,),
    ),
    Operation(
        "POST",
        VOICES,
        "Make a voice.",
        _json(told.Voice),
        (*BAD_CLIP, UnknownConsent, QuotaExceeded, TurnTimeout),
        NewVoice,
        FORM,
    ),
    Operation("GET", VOICES, "List voices.", _json(told.PageOf[told.Voice]), BAD, query=PageQuery),
    Operation("GET", VOICES + "/{id}", "A voice.", _json(told.Voice), (UnknownVoice,)),
    Operation("DELETE", VOICES + "/{id}", "Delete a voice.", _json(told.DeletedVoice), (UnknownVoice,)),
    Operation(
        "GET",
        "/v1/audio/voice_audit",
        "Who made, used and deleted what.",
        _json(told.PageOf[told.AuditEntry]),
        BAD,
        query=PageQuery,
    ),
    Operation("GET", "/v1/audio/speech", SPEECH, {}, (UnknownRoute,)),
    Operation("POST", "/v1/audio/speech", SPEECH, {}, (UnknownRoute,)),
    Operation(
        "GET", "/v1/usage", "What was used, by day and key.", _json(told.ListOf[told.UsageDay]), BAD, query=DayQuery
    ),
    Operation("GET", TENANTS, "List tenants.", _json(told.ListOf[told.Tenant])),
    Operation("POST", TENANTS, "Add a tenant.", _json(told.Tenant, 201), BAD, NewTenant),
    Operation("GET", TENANTS + "/{tenant}", "A tenant.", _json(told.Tenant), (UnknownTenant,)),
    Operation(
        "PATCH",
        TENANTS + "/{tenant}",
        "Change a tenant: what is not named stays.",
        _json(told.Tenant),
        (UnknownTenant,),
        TenantChange,
        body_needed=False,
    ),
    Operation(
        "DELETE",
        TENANTS + "/{tenant}",
        "Erase a tenant and all that is stored of it.",
        _json(told.ErasedTenant),
        (UnknownTenant,),
    ),
    Operation("GET", KEYS, "List a tenant's keys.", _json(told.ListOf[told.Key]), (UnknownTenant,)),
    Operation("POST", KEYS, "Make a key.", _json(told.NewKeyTold, 201), (UnknownTenant,), NewKey, body_needed=False),
    Operation("DELETE", KEYS + "/{key}", "Revoke a key, for good.", _json(told.Key), (UnknownTenant, UnknownKey)),
    Operation("GET", KEYS_PATH, "The public keys that replies are signed with.", _json(told.PublicKeys)),
    Operation("GET", "/openapi.json", "This document.", _json(dict[str, Any])),
    Operation("GET", "/healthz", "Whether the process lives.", _json(told.Health)),
    Operation("GET", "/readyz", "Whether requests are answered.", {**_json(told.Health), **_json(told.Health, 503)}),
    Operation("GET", "/-/healthz", "For load balancers: the word `success`.", {200: {TEXT: None}, 503: {TEXT: None}}),
)
