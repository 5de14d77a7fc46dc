"""`chroma tenants` and `chroma keys`: on the database itself, without a running server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table

from deployments.ingress.api_key import KeyHash, pepper
from deployments.ingress.openai_parse import told
from deployments.ingress.store.address import database_url
from deployments.ingress.store.database import Database
from deployments.ingress.store.tenant_store import TenantStore
from deployments.ingress.store.tenant_tables import ApiKey, Tenant
from deployments.ingress.tenants import NewKey, NewTenant, TenantChange, make_key, told_day, told_key, told_tenant
from deployments.settings import Settings

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)
TIMEOUT_S = 30.0


class Office:
    """The database that the settings name."""

    def __init__(self, settings_file: Path | None, database: str | None) -> None:
        self._ingress = Settings.load(settings_file).models.ingress
        self._url = database if database is not None else self._ingress.database_url

    def add(self, tenant_id: str, **said: Any) -> None:
        wanted = _checked(NewTenant, {"id": tenant_id, **_said(said)})
        _show_tenants([self._with(lambda store: store.add(wanted.id, wanted.said()))])

    def change(self, tenant_id: str, **said: Any) -> None:
        change = _checked(TenantChange, _said(said)).said()
        _show_tenants([self._with(lambda store: store.change(tenant_id, change))])

    def tenants(self) -> None:
        _show_tenants(self._with(lambda store: store.tenants()))

    def erase(self, tenant_id: str) -> None:
        gone = self._with(lambda store: store.erase(tenant_id))
        print(f"{tenant_id}: {gone.consents} consents with their voices, {gone.keys} keys, {gone.usage} rows of usage.")

    def add_key(self, tenant_id: str, name: str, scopes: list[str], expires_in_days: int | None) -> None:
        expires_in_s = None if expires_in_days is None else expires_in_days * 86_400
        wanted = _checked(
            NewKey, {"name": name, "expires_in_s": expires_in_s, **({"scopes": scopes} if scopes else {})}
        )
        key_hash = KeyHash(pepper(self._ingress.key_secret, database_url(self._url)))
        kept, key = self._with(lambda store: make_key(store, key_hash, tenant_id, wanted))
        print(f"{key}\nThis is key {kept.id} of {tenant_id}; it is shown this once.")

    def keys(self, tenant_id: str) -> None:
        _show_keys(self._with(lambda store: store.keys(tenant_id)))

    def revoke(self, tenant_id: str, key_id: str) -> None:
        _show_keys([self._with(lambda store: store.revoke(tenant_id, key_id))])

    def _with(self, work: Callable[[TenantStore], Awaitable[T]]) -> T:
        async def run() -> T:
            database = Database(self._url, TIMEOUT_S)
            await database.open()
            try:
                return await work(TenantStore(database))
            finally:
                await database.close()

        return asyncio.run(run())


def _said(words: dict[str, Any]) -> dict[str, Any]:
    """Options that were given; 0 seconds a minute or a day takes the limit away."""
    said = {name: value for name, value in words.items() if value is not None}
    unlimited = [name for name in ("audio_s_per_minute", "audio_s_per_day") if said.get(name) == 0]
    return {**said, **dict.fromkeys(unlimited)}


def _checked(kind: type[Body], said: dict[str, Any]) -> Body:
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise told(error, said) from None


def _show_tenants(tenants: Sequence[Tenant]) -> None:
    columns = ("id", "enabled", "streams", "audio_s_per_minute", "audio_s_per_day", "voices", "priority", "weight")
    _show(columns, [told_tenant(tenant) for tenant in tenants])


def _show_keys(keys: Sequence[ApiKey]) -> None:
    rows = [told_key(key) for key in keys]
    for row in rows:
        row["scopes"] = " ".join(row["scopes"])
        row |= {name: told_day(row[name]) for name in ("created_at", "expires_at", "revoked_at") if row[name]}
    _show(("id", "name", "scopes", "created_at", "expires_at", "revoked_at"), rows)


def _show(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in columns))
    Console().print(table)
