"""Who is calling: API keys of tenants, and short-lived client secrets for those who should not hold a key."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import jwt
import pydantic_core
from cachetools import TTLCache
from jwt.types import Options
from starlette.types import Scope

from chroma_models.errors import Forbidden, TooLarge, Unauthenticated
from deployments.ingress.api_key import KeyHash, ParsedKey, parse_key
from deployments.ingress.config import IngressConfig
from deployments.ingress.provenance.statement import KEYS_PATH
from deployments.ingress.store.tenant_store import SCOPES, TenantStore
from deployments.ingress.store.tenant_tables import ApiKey, Tenant

EVERYBODY = "public"  # the one tenant of a server without authentication
PREFIX = "ek_"
ALGORITHM = "HS256"
AUDIENCE = "realtime"
CLAIMS = ["aud", "exp", "tenant", "key", "session"]
MAX_SESSION_BYTES = 4096  # the token travels in a header line, of which WebSocket servers read 8 KB
UNKNOWN = "The API key is not known here; check it, or ask the operator for one."


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant may use. None: without a limit. audio_s: spoken to them."""

    streams: int
    audio_s_per_minute: float | None
    audio_s_per_day: float | None
    voices: int
    priority: int
    weight: float
    retention_s: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. Everything that is stored belongs to a tenant; key_id names a key without telling it.

    session: the settings a client secret was made with, None for an API key. A client secret opens sessions, no more.
    share: None where nobody counts, on a server without authentication.
    """

    tenant: str
    key_id: str
    session: Mapping[str, Any] | None = None
    scopes: frozenset[str] = frozenset(SCOPES)
    share: Share | None = None

    def check(self, scope: str) -> None:
        """Raises Forbidden for one who came with a client secret, or whose key lacks the scope."""
        if self.session is not None:
            raise Forbidden("A client secret opens Realtime sessions only; use an API key here.")
        self.check_scope(scope)

    def check_scope(self, scope: str) -> None:
        if scope not in self.scopes:
            raise Forbidden(f"This API key lacks the scope '{scope}'; use another, or ask the operator for one.")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    value: str
    expires_at: int  # Unix second


class Callers:
    """Tells callers by what they show.

    What the database says of a key is believed for key_cache_s, so that a revoked one is refused soon everywhere.
    """

    def __init__(self, config: IngressConfig, tenants: TenantStore, clock: Callable[[], float] = time.time) -> None:
        self._auth, self._ttl_s, self._clock = config.auth, config.client_secret_ttl_s, clock
        self._tenants = tenants
        self._hash: KeyHash | None = None
        self._signing = blake2b(
            (config.token_secret or secrets.token_hex()).encode(), person=b"client secrets"
        ).digest()
        self._known: TTLCache[str, tuple[ApiKey, Tenant] | None] = TTLCache(config.key_cache, config.key_cache_s)

    def open(self, key_hash: KeyHash) -> None:
        """From now on keys can be told."""
        self._hash = key_hash

    async def of_key(self, secret: str | None) -> Caller:
        """The caller behind an API key or a client secret. Raises Unauthenticated, which says what to do."""
        if secret and secret.startswith(PREFIX):
            return await self._of_client_secret(secret.removeprefix(PREFIX))
        if not self._auth:
            return Caller(EVERYBODY, "open")
        if not secret:
            raise Unauthenticated("No API key was sent; send the header 'Authorization: Bearer KEY'.")
        key = parse_key(secret)
        if key is None:
            raise Unauthenticated(UNKNOWN)
        return await self._of_key_id(key.key_id, key)

    async def of_scope(self, scope: Scope) -> Caller:
        """The caller of an HTTP request or a WebSocket handshake, by its Authorization header."""
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return await self.of_authorization(sent.decode("latin-1"))

    async def of_authorization(self, sent: str) -> Caller:
        """By the header's value, or what stands for it in another protocol; empty where none was sent."""
        return await self.of_key(bearer(sent))

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

    async def _of_client_secret(self, token: str) -> Caller:
        # expiry is checked by our own clock, below
        options: Options = {"require": CLAIMS, "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, self._signing, [ALGORITHM], options, audience=AUDIENCE)
        except jwt.InvalidTokenError:
            raise Unauthenticated("The client secret is not valid here; make one with an API key.") from None
        if claims["exp"] <= self._clock():
            raise Unauthenticated("The client secret has expired; make a new one with an API key.")
        if not self._auth:
            return Caller(claims["tenant"], claims["key"], claims["session"])
        return replace(await self._of_key_id(claims["key"]), session=claims["session"])

    async def _of_key_id(self, key_id: str, shown: ParsedKey | None = None) -> Caller:
        """shown: by which its owner has to prove it. What else is wrong with a key is told to its owner alone."""
        if key_id not in self._known:
            self._known[key_id] = await self._tenants.key(key_id)
        found = self._known.get(key_id)
        if found is None:
            raise Unauthenticated(UNKNOWN)
        key, tenant = found
        if shown is not None and not (self._hash and self._hash.matches(shown, key.hash)):
            raise Unauthenticated(UNKNOWN)
        if key.revoked_at is not None:
            raise Unauthenticated("The API key was revoked; ask the operator for another.")
        if key.expires_at is not None and key.expires_at <= self._clock():
            raise Unauthenticated("The API key has expired; ask the operator for another.")
        if not tenant.enabled:
            raise Forbidden(f"The tenant '{tenant.id}' is disabled; ask the operator.")
        return Caller(tenant.id, key.id, None, frozenset(key.scopes.split()), share_of(tenant))


def needs_key(path: str) -> bool:
    """Whether what lies there, or would, is for tenants. Public keys are for everybody."""
    return path.startswith("/v1/") and path != KEYS_PATH


def scope_of(path: str) -> str:
    """What a key must be good for, to call what lies there."""
    if path.startswith("/v1/audio/voice"):
        return "voices"
    return "usage" if path.startswith("/v1/usage") else "speech"


def bearer(sent: str) -> str | None:
    """What an Authorization header shows."""
    scheme, _, secret = sent.strip().partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def share_of(tenant: Tenant) -> Share:
    return Share(
        tenant.streams,
        tenant.audio_s_per_minute,
        tenant.audio_s_per_day,
        tenant.voices,
        tenant.priority,
        tenant.weight,
        tenant.retention_s,
    )
