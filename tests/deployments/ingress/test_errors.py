"""The table from errors to wires."""

import grpc
import pytest

from chroma_models import errors
from chroma_models.errors import ChromaError
from deployments.ingress import errors as wire
from deployments.ingress import sockets  # it defines an error of its own
from deployments.ingress.errors import WIRE, body_of, headers_of, wire_of

assert sockets.CannotListen


def all_errors(kind: type[ChromaError] = ChromaError) -> list[type[ChromaError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in all_errors(child))]


OURS = [kind for kind in all_errors() if kind.__module__.startswith(("chroma_models", "deployments"))]

# What DESIGN's table says, class by class; a class that is not named is spelled as its parent.
HTTP = {
    "InvalidRequest": 400,
    "InvalidAudio": 400,
    "InvalidVoice": 400,
    "PromptTooLong": 400,
    "HeadersTooLarge": 431,
    "TooLarge": 413,
    "Unauthenticated": 401,
    "Forbidden": 403,
    "UnknownVoice": 404,
    "UnknownModel": 404,
    "UnknownConsent": 404,
    "UnknownReply": 404,
    "UnknownTenant": 404,
    "UnknownKey": 404,
    "UnknownRoute": 404,
    "MethodNotAllowed": 405,
    "SlowRequest": 408,
    "Overloaded": 429,
    "QuotaExceeded": 429,
    "StageUnavailable": 503,
    "TurnTimeout": 504,
    "CheckpointError": 500,
    "CannotListen": 500,
    "UnusableDatabase": 500,
    "InvalidCodes": 500,
    "ChromaError": 500,
}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: str(kind.__name__))
def test_every_error_has_a_row_for_every_protocol(kind: type[ChromaError]) -> None:
    row = next(WIRE[k] for k in kind.__mro__ if k in WIRE)
    assert row.http == next(HTTP[k.__name__] for k in kind.__mro__ if k.__name__ in HTTP)
    assert row.grpc in grpc.StatusCode.__members__
    assert row.kind
    assert row.told == (row.http != 500)
    if kind.__name__ not in ("CheckpointError", "CannotListen", "UnusableDatabase", "InvalidCodes", "ChromaError"):
        assert row is not WIRE[ChromaError], "a refusal needs a row of its own or of its parent's"


def test_codes_are_public_and_distinct() -> None:
    codes = [kind.code for kind in OURS if "code" in vars(kind)]
    assert len(set(codes)) == len(codes)


def test_the_table_holds_nothing_that_is_no_error_of_ours() -> None:
    assert set(WIRE) - {BaseException} <= set(OURS)
    assert errors.TooLarge in WIRE
    assert wire.UnknownReply in WIRE


@pytest.mark.parametrize(("asked_s", "told"), [(None, "1"), (0.2, "1"), (2.0, "2"), (2.1, "3")])
def test_retry_after_is_whole_seconds_rounded_up(asked_s: float | None, told: str) -> None:
    assert headers_of(errors.Overloaded("Full.", asked_s)) == {"retry-after": told}


def test_a_stranger_is_told_nothing() -> None:
    assert wire_of(KeyError("/etc/passwd")).http == 500
    assert "passwd" not in str(body_of(KeyError("/etc/passwd"), "req_1"))
