"""Tenants and their keys, as an operator sees them and as every call asks for them."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from chroma_models.errors import InvalidRequest
from deployments.ingress.errors import UnknownKey, UnknownTenant
from deployments.ingress.store.database import Database
from deployments.ingress.store.tables import Consent, VoiceAudit
from deployments.ingress.store.tenant_tables import ApiKey, Permit, Spent, Tenant, UsageRow

SCOPES = ("speech", "voices", "usage")
DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "streams": 10,
    "audio_s_per_minute": None,
    "audio_s_per_day": None,
    "voices": 100,
    "priority": 0,
    "weight": 1.0,
    "retention_s": 0,
}


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows are gone."""

    consents: int
    keys: int
    usage: int


class TenantStore:
    """Every method is one short transaction. Raises StageUnavailable where the database does not answer."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    async def add(self, tenant_id: str, changes: dict[str, Any]) -> Tenant:
        """changes: to DEFAULTS. Raises InvalidRequest where there is one of that name."""
        tenant = Tenant(id=tenant_id, created_at=int(self._clock()), **{**DEFAULTS, **changes})
        try:
            async with self._database.session() as session:
                session.add(tenant)
                await session.flush()
                await _add_permits(session, tenant_id, range(tenant.streams))
        except IntegrityError:
            raise InvalidRequest(f"There is a tenant '{tenant_id}' already.", "id") from None
        return tenant

    async def change(self, tenant_id: str, changes: dict[str, Any]) -> Tenant:
        """Streams that run go on; what is new has to fit. Raises UnknownTenant."""
        async with self._database.session() as session:
            tenant = await session.scalar(select(Tenant).where(Tenant.id == tenant_id).with_for_update())
            if tenant is None:
                raise unknown_tenant(tenant_id)
            for name, value in changes.items():
                setattr(tenant, name, value)
            known = set((await session.scalars(select(Permit.number).where(Permit.tenant == tenant_id))).all())
            await _add_permits(session, tenant_id, [n for n in range(tenant.streams) if n not in known])
        return tenant

    async def tenant(self, tenant_id: str) -> Tenant:
        """Raises UnknownTenant."""
        async with self._database.session() as session:
            tenant = await session.get(Tenant, tenant_id)
        if tenant is None:
            raise unknown_tenant(tenant_id)
        return tenant

    async def tenants(self) -> Sequence[Tenant]:
        async with self._database.session() as session:
            return (await session.scalars(select(Tenant).order_by(Tenant.id))).all()

    async def erase(self, tenant_id: str) -> Erased:
        """All that is stored of a tenant. Raises UnknownTenant where that is nothing."""
        async with self._database.session() as session:
            gone = {}
            for table in (Consent, VoiceAudit, ApiKey, UsageRow, Permit, Spent):  # voices go with their consents
                done = await session.execute(delete(table).where(table.tenant == tenant_id))
                gone[table] = int(getattr(done, "rowcount", 0))
            known = await session.execute(delete(Tenant).where(Tenant.id == tenant_id))
        if not getattr(known, "rowcount", 0) and not any(gone.values()):
            raise unknown_tenant(tenant_id)
        return Erased(gone[Consent], gone[ApiKey], gone[UsageRow])

    async def add_key(
        self, tenant_id: str, key_id: str, hashed: bytes, name: str, scopes: Collection[str], expires_at: int | None
    ) -> ApiKey:
        """Raises UnknownTenant."""
        key = ApiKey(
            id=key_id,
            tenant=tenant_id,
            hash=hashed,
            name=name,
            scopes=" ".join(scope for scope in SCOPES if scope in scopes),
            created_at=int(self._clock()),
            expires_at=expires_at,
        )
        try:
            async with self._database.session() as session:
                session.add(key)
        except IntegrityError:
            raise unknown_tenant(tenant_id) from None
        return key

    async def keys(self, tenant_id: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones too. Raises UnknownTenant."""
        await self.tenant(tenant_id)
        wanted = select(ApiKey).where(ApiKey.tenant == tenant_id).order_by(ApiKey.created_at.desc(), ApiKey.id)
        async with self._database.session() as session:
            return (await session.scalars(wanted)).all()

    async def key(self, key_id: str) -> tuple[ApiKey, Tenant] | None:
        """With whose it is."""
        wanted = select(ApiKey, Tenant).join(Tenant, ApiKey.tenant == Tenant.id).where(ApiKey.id == key_id)
        async with self._database.session() as session:
            row = (await session.execute(wanted)).one_or_none()
        return None if row is None else (row[0], row[1])

    async def revoke(self, tenant_id: str, key_id: str) -> ApiKey:
        """For good. Raises UnknownKey."""
        this = (ApiKey.tenant == tenant_id, ApiKey.id == key_id)
        async with self._database.session() as session:
            await session.execute(
                update(ApiKey).where(*this, ApiKey.revoked_at.is_(None)).values(revoked_at=int(self._clock()))
            )
            key = await session.scalar(select(ApiKey).where(*this))
        if key is None:
            raise UnknownKey(f"The tenant '{tenant_id}' has no key '{key_id[:32]}'.", "key_id")
        return key


def unknown_tenant(tenant_id: str) -> UnknownTenant:
    return UnknownTenant(f"There is no tenant '{tenant_id[:64]}'.", "tenant_id")


async def _add_permits(session: AsyncSession, tenant_id: str, numbers: Sequence[int]) -> None:
    """As rows, not as objects: there may be thousands."""
    if numbers:
        rows = [{"tenant": tenant_id, "number": number, "expires_at": 0.0} for number in numbers]
        await session.execute(insert(Permit), rows)
