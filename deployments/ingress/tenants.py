"""Tenants and keys in an operator's words, for the command line and the admin API alike."""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chroma_models.errors import InvalidRequest
from deployments.ingress.api_key import KeyHash, new_key
from deployments.ingress.store.tables import NAME_CHARS, TENANT_CHARS
from deployments.ingress.store.tenant_store import TenantStore
from deployments.ingress.store.tenant_tables import ApiKey, Tenant

Json = dict[str, Any]
Priority = Literal["high", "normal", "low"]
PRIORITIES: dict[Priority, int] = {"high": -1, "normal": 0, "low": 1}  # lower goes first
TENANT = re.compile(rf"[A-Za-z0-9._-]{{1,{TENANT_CHARS}}}")
MOST_STREAMS = 10_000  # of a tenant: a row each

AudioSeconds = Annotated[float, Field(ge=0, le=1e12)] | None
Scope = Literal["speech", "voices", "usage"]


class TenantChange(BaseModel):
    """What may be said of a tenant; what is not said stays. None: without a limit."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = True
    streams: Annotated[int, Field(ge=0, le=MOST_STREAMS)] = 10
    audio_s_per_minute: AudioSeconds = None
    audio_s_per_day: AudioSeconds = None
    voices: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    priority: Priority = "normal"
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    retention_s: Annotated[int, Field(ge=0, le=10 * 365 * 86_400)] = 0

    def said(self) -> Json:
        """In the table's words."""
        said = self.model_dump(exclude_unset=True, exclude={"id"})
        return {**said, "priority": PRIORITIES[self.priority]} if "priority" in said else said


class NewTenant(TenantChange):
    id: Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=NAME_CHARS)] = ""
    scopes: Annotated[list[Scope], Field(min_length=1)] = ["speech", "voices", "usage"]
    expires_in_s: Annotated[int, Field(gt=0, le=100 * 365 * 86_400)] | None = None


async def make_key(tenants: TenantStore, key_hash: KeyHash, tenant_id: str, wanted: NewKey) -> tuple[ApiKey, str]:
    """What is kept, and the key itself, which is not kept. Raises UnknownTenant."""
    key = new_key()
    expires_at = None if wanted.expires_in_s is None else int(time.time()) + wanted.expires_in_s
    kept = await tenants.add_key(
        tenant_id, key.key_id, key_hash.of(key), wanted.name, frozenset(wanted.scopes), expires_at
    )
    return kept, key.whole


def told_tenant(tenant: Tenant) -> Json:
    priority = next((name for name, number in PRIORITIES.items() if number == tenant.priority), "normal")
    return {
        "id": tenant.id,
        "object": "tenant",
        "created_at": tenant.created_at,
        "enabled": tenant.enabled,
        "streams": tenant.streams,
        "audio_s_per_minute": tenant.audio_s_per_minute,
        "audio_s_per_day": tenant.audio_s_per_day,
        "voices": tenant.voices,
        "priority": priority,
        "weight": tenant.weight,
        "retention_s": tenant.retention_s,
    }


def told_key(key: ApiKey) -> Json:
    """Never the key."""
    return {
        "id": key.id,
        "object": "api_key",
        "tenant": key.tenant,
        "name": key.name,
        "scopes": key.scopes.split(),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def told_list(data: Sequence[Json]) -> Json:
    return {"object": "list", "data": list(data)}


def day(told: str, param: str) -> int:
    """2026-11-25 as the Unix second it begins at, UTC. Raises InvalidRequest."""
    try:
        return int(datetime.strptime(told, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise InvalidRequest(f"'{param}' is a day like 2026-11-25, UTC.", param) from None


def told_day(begins_at: int) -> str:
    return datetime.fromtimestamp(begins_at, UTC).strftime("%Y-%m-%d")
