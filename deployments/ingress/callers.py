"""Who is calling: API keys from a file, and short-lived client secrets for those who should not hold a key."""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jwt
import pydantic_core
from jwt.types import Options
from starlette.types import Scope

from chroma_models.errors import Forbidden, InvalidRequest, TooLarge, Unauthenticated
from deployments.ingress.config import IngressConfig

EVERYBODY = "public"  # the one tenant of a server without a key file
TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
PREFIX = "ek_"
ALGORITHM = "HS256"
AUDIENCE = "realtime"
CLAIMS = ["aud", "exp", "tenant", "key", "session"]
MAX_SESSION_BYTES = 4096  # the token travels in a header line, of which WebSocket servers read 8 KB


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. Everything that is stored belongs to a tenant; key_id names a key without telling it.

    session: the settings a client secret was made with, None for an API key. A client secret opens sessions, no more.
    """

    tenant: str
    key_id: str
    session: Mapping[str, Any] | None = None

    def check_key(self) -> None:
        """Raises Forbidden for one who came with a client secret."""
        if self.session is not None:
            raise Forbidden("A client secret opens Realtime sessions only; use an API key here.")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    value: str
    expires_at: int  # Unix second


class Callers:
    """Tells callers by what they show.

    Keys are kept as hashes under a key of this process, so the time a look-up takes tells nothing about any of them.
    Without a key file everybody is one tenant, which is meant for the loopback.
    """

    def __init__(self, config: IngressConfig, clock: Callable[[], float] = time.time) -> None:
        """Raises InvalidRequest where the key file cannot be used."""
        self._ttl_s, self._clock = config.client_secret_ttl_s, clock
        self._salt = secrets.token_bytes(32)
        self._signing = blake2b(
            (config.token_secret or secrets.token_hex()).encode(), person=b"client secrets"
        ).digest()
        self._keys: dict[bytes, Caller] | None = None
        if config.api_keys_file is not None:
            self._keys = {
                self._hash(key): Caller(tenant, _key_id(key)) for key, tenant in read_keys(config.api_keys_file).items()
            }

    def of_key(self, secret: str | None) -> Caller:
        """The caller behind an API key or a client secret. Raises Unauthenticated, which says what to do."""
        if secret and secret.startswith(PREFIX):
            return self._of_client_secret(secret.removeprefix(PREFIX))
        if self._keys is None:
            return Caller(EVERYBODY, "open")
        if not secret:
            raise Unauthenticated("No API key was sent; send the header 'Authorization: Bearer KEY'.")
        caller = self._keys.get(self._hash(secret))
        if caller is None:
            raise Unauthenticated("The API key is not known here; check it, or ask the operator for one.")
        return caller

    def of_scope(self, scope: Scope) -> Caller:
        """The caller of an HTTP request or a WebSocket handshake, by its Authorization header."""
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return self.of_authorization(sent.decode("latin-1"))

    def of_authorization(self, sent: str) -> Caller:
        """By the header's value, or what stands for it in another protocol; empty where none was sent."""
        scheme, _, secret = sent.strip().partition(" ")
        return self.of_key(secret.strip() if scheme.lower() == "bearer" else None)

    def client_secret(self, caller: Caller, session: Mapping[str, Any], ttl_s: float | None = None) -> ClientSecret:
        """A token for the caller's tenant that any replica with the same token_secret takes until it expires.

        Raises TooLarge where the session's settings do not fit into a header.
        """
        size = len(pydantic_core.to_json(session))
        if size > MAX_SESSION_BYTES:
            raise TooLarge(
                f"The session's settings take {size} bytes; a client secret carries at most {MAX_SESSION_BYTES}. "
                "Send long instructions with session.update.",
                "session",
            )
        now = int(self._clock())
        expires_at = now + round(self._ttl_s if ttl_s is None else ttl_s)
        claims = {
            "aud": AUDIENCE,
            "iat": now,
            "exp": expires_at,
            "jti": secrets.token_hex(8),
            "tenant": caller.tenant,
            "key": caller.key_id,
            "session": session,
        }
        return ClientSecret(PREFIX + jwt.encode(claims, self._signing, ALGORITHM), expires_at)

    def _of_client_secret(self, token: str) -> Caller:
        # expiry is checked by our own clock, below
        options: Options = {"require": CLAIMS, "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, self._signing, [ALGORITHM], options, audience=AUDIENCE)
        except jwt.InvalidTokenError:
            raise Unauthenticated("The client secret is not valid here; make one with an API key.") from None
        if claims["exp"] <= self._clock():
            raise Unauthenticated("The client secret has expired; make a new one with an API key.")
        return Caller(claims["tenant"], claims["key"], claims["session"])

    def _hash(self, key: str) -> bytes:
        return blake2b(key.encode(), key=self._salt, digest_size=32).digest()


def read_keys(path: Path) -> dict[str, str]:
    """Key to tenant, from lines `tenant key`; empty lines and those that begin with # are passed over.

    Raises InvalidRequest with the line that is wrong, never with a key.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The file of API keys {path} cannot be read: {error}.") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"Line {number} of the file of API keys {path}"
        if len(words) != 2:
            raise InvalidRequest(f"{where} is not `tenant key`.")
        tenant, key = words
        if not TENANT.fullmatch(tenant):
            raise InvalidRequest(f"{where} names a tenant of other than 1 to 64 letters, digits, dots, _ and -.")
        if key.startswith(PREFIX):
            raise InvalidRequest(f"{where} has a key that begins with {PREFIX}, as only client secrets do.")
        if key in keys:
            raise InvalidRequest(f"{where} repeats a key.")
        keys[key] = tenant
    if not keys:
        raise InvalidRequest(f"The file of API keys {path} holds none.")
    return keys


def _key_id(key: str) -> str:
    """The same on every replica and after every start."""
    return f"key_{blake2b(key.encode(), digest_size=6).hexdigest()}"
