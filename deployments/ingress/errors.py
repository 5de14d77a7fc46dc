"""How each protocol spells what went wrong: one table, from class to wire."""

from dataclasses import dataclass
from typing import Any

from chroma_models.errors import (
    ChromaError,
    Forbidden,
    InvalidRequest,
    Overloaded,
    QuotaExceeded,
    StageUnavailable,
    TooLarge,
    TurnTimeout,
    Unauthenticated,
    UnknownModel,
    UnknownVoice,
)


class UnknownReply(InvalidRequest):
    """An assistant message names an audio id that was never given out, has expired, or was another replica's."""

    code = "audio_not_found"


class UnknownConsent(InvalidRequest):
    """No such recording of a consent, or another tenant's."""

    code = "voice_consent_not_found"


class UnknownTenant(InvalidRequest):
    """No such tenant. Only operators see it."""

    code = "tenant_not_found"


class UnknownKey(InvalidRequest):
    """No such API key of this tenant. Only operators see it."""

    code = "key_not_found"


class UnknownRoute(InvalidRequest):
    code = "unknown_url"


class MethodNotAllowed(InvalidRequest):
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.args = (message, allowed)
        self.allowed = allowed  # methods, as the Allow header lists them


class HeadersTooLarge(TooLarge):
    """The request line and headers, in bytes or in number."""

    code = "headers_too_large"


class SlowRequest(InvalidRequest):
    """Its headers or its body did not arrive in time."""

    code = "request_timeout"


@dataclass(frozen=True)
class Wire:
    """http: status. kind: OpenAI's error type. grpc: name of the status code. told: the message is for the caller."""

    http: int
    kind: str
    grpc: str
    told: bool = True
    retry_after_s: float | None = None  # when the error does not say


# The row of the nearest class counts, so a subclass is spelled as its parent until it gets a row of its own.
WIRE: dict[type[BaseException], Wire] = {
    InvalidRequest: Wire(400, "invalid_request_error", "INVALID_ARGUMENT"),
    TooLarge: Wire(413, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    HeadersTooLarge: Wire(431, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    UnknownVoice: Wire(404, "invalid_request_error", "NOT_FOUND"),
    UnknownModel: Wire(404, "invalid_request_error", "NOT_FOUND"),
    UnknownConsent: Wire(404, "invalid_request_error", "NOT_FOUND"),
    UnknownReply: Wire(404, "invalid_request_error", "NOT_FOUND"),
    UnknownTenant: Wire(404, "invalid_request_error", "NOT_FOUND"),
    UnknownKey: Wire(404, "invalid_request_error", "NOT_FOUND"),
    UnknownRoute: Wire(404, "invalid_request_error", "UNIMPLEMENTED"),
    MethodNotAllowed: Wire(405, "invalid_request_error", "UNIMPLEMENTED"),
    SlowRequest: Wire(408, "invalid_request_error", "DEADLINE_EXCEEDED"),
    Unauthenticated: Wire(401, "invalid_request_error", "UNAUTHENTICATED"),
    Forbidden: Wire(403, "invalid_request_error", "PERMISSION_DENIED"),
    Overloaded: Wire(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retry_after_s=1.0),
    QuotaExceeded: Wire(429, "insufficient_quota", "RESOURCE_EXHAUSTED", retry_after_s=1.0),
    StageUnavailable: Wire(503, "server_error", "UNAVAILABLE", retry_after_s=1.0),
    TurnTimeout: Wire(504, "server_error", "DEADLINE_EXCEEDED"),
    ChromaError: Wire(500, "server_error", "INTERNAL", told=False),
    BaseException: Wire(500, "server_error", "INTERNAL", told=False),
}


def wire_of(error: BaseException) -> Wire:
    """The row of an error's nearest class; an error that gained classes on its way keeps its row."""
    return wire_of_kind(type(error))


def wire_of_kind(kind: type[BaseException]) -> Wire:
    return next(WIRE[near] for near in kind.__mro__ if near in WIRE)


def is_fault(error: BaseException) -> bool:
    """Whether the error is ours to explain in a log rather than the caller's to read."""
    return not wire_of(error).told


def body_of(error: BaseException, request_id: str) -> dict[str, Any]:
    """OpenAI's error object. A fault says nothing but the request id.

    Read by attribute, never by str(): an error that crossed processes may print a remote traceback.
    """
    wire = wire_of(error)
    if not wire.told:
        message = f"The server made a mistake while answering request {request_id}. Please try again."
        return {"error": {"message": message, "type": wire.kind, "param": None, "code": ChromaError.code}}
    message, code = getattr(error, "message", ""), getattr(error, "code", ChromaError.code)
    param = getattr(error, "param", None) or getattr(error, "quota", None)
    return {"error": {"message": message, "type": wire.kind, "param": param, "code": code}}


def headers_of(error: BaseException) -> dict[str, str]:
    """retry-after, in whole seconds rounded up, where coming back helps; allow, where another method does;
    www-authenticate, where a key would."""
    if isinstance(error, MethodNotAllowed):
        return {"allow": error.allowed}
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": "Bearer"}
    wait_s = retry_after_s(error)
    return {} if wait_s is None else {"retry-after": str(max(1, -int(-wait_s // 1)))}


def retry_after_s(error: BaseException) -> float | None:
    """When to come back; None where that does not help."""
    wire = wire_of(error)
    return None if wire.retry_after_s is None else getattr(error, "retry_after_s", None) or wire.retry_after_s
