"""Ask a file what it says of itself, and whether that holds."""

from datetime import UTC, datetime
from pathlib import Path

import httpx

from chroma_models.errors import InvalidRequest, StageUnavailable
from deployments.ingress.provenance.files import Json, kind_of, token_in, unchanged
from deployments.ingress.provenance.keys import BadSignature, checked, claims_of, keys_of, read_keys
from deployments.ingress.provenance.statement import AudioHash

HOLDS, DOES_NOT_HOLD = 0, 1
FETCH_TIMEOUT_S = 10.0


def verify(path: Path, keys: str) -> int:
    """Print a line per fact; 0 where all of it holds, 1 where not, or where the file says nothing.

    keys: a JWK set's file or URL. Raises InvalidAudio, InvalidRequest, StageUnavailable where that cannot be told.
    """
    try:
        file = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None
    token = token_in(file)
    if token is None:
        _say("says", "nothing of where it comes from; that does not make it anybody's real voice")
        return DOES_NOT_HOLD
    try:
        claims = claims_of(token)
        _show(claims)
    except (BadSignature, KeyError, TypeError, ValueError):
        _say("says", "something that is no statement of provenance")
        return DOES_NOT_HOLD
    try:
        _, key = checked(token, _fetched(keys) if "://" in keys else read_keys(Path(keys)))
        _say("signature", f"holds, by key {key}")
    except BadSignature as error:
        _say("signature", f"DOES NOT HOLD: {error.message}; nothing above is certain")
        return DOES_NOT_HOLD
    return _heard(file, claims)


def _show(claims: Json) -> None:
    """Raises KeyError, TypeError, ValueError where a statement lacks what every one has."""
    made = datetime.fromtimestamp(claims["created_at"], UTC)
    _say("says", f"synthetic speech, made by the model {claims['model']!r}")
    _say("made", f"{made:%Y-%m-%d %H:%M:%S} UTC")
    _say("voice", f"{claims['voice']}")
    _say("response", f"{claims['response']}")
    if claims["watermark"] is not None:
        _say("watermark", f"{claims['watermark']}")
    _say("tenant", f"{claims['tenant']} (a hash: the same for all replies to one)")


def _heard(file: bytes, claims: Json) -> int:
    if claims["audio"] is None:
        _say("audio", "not in the statement: it belongs to a reply that was cut short, or was not spoken")
        return DOES_NOT_HOLD
    audio = AudioHash(**claims["audio"])
    if unchanged(file, audio):
        _say("audio", f"unchanged ({audio.of}, SHA-256 {audio.sha256[:16]}...)")
        return HOLDS
    _say("audio", f"CHANGED: this {kind_of(file)} file does not hold the {audio.of} audio that was signed")
    return DOES_NOT_HOLD


def _say(fact: str, words: str) -> None:
    """What an unsigned file says may hold what terminals obey."""
    print(f"{fact:<11}{''.join(one if one.isprintable() else '?' for one in words)}")


def _fetched(url: str) -> list[Json]:
    try:
        answer = httpx.get(url, timeout=FETCH_TIMEOUT_S)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StageUnavailable(f"{url} gives no keys ({error}); name a file or another address with --keys.") from None
    return keys_of(answer.text, url)
