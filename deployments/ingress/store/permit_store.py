"""Rights to a stream, taken and given back by single statements that no two replicas can both win."""

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.orm import aliased

from deployments.ingress.store.database import Database
from deployments.ingress.store.tenant_tables import ApiKey, Permit, Tenant


class PermitStore:
    """Every method is one short transaction. Times are Unix seconds; replicas' clocks agree to well under a TTL.

    Raises StageUnavailable where the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, tenant: str, holder: str, replica: str, now: float, expires_at: float) -> int | None:
        """How many the tenant now holds; None where its quota is used up.

        A row is a permit: the lowest one of the quota that is free or has lapsed. On PostgreSQL rows that another
        transaction is taking are passed over rather than waited for; SQLite has one writer at a time.
        """
        row = aliased(Permit)
        quota = select(Tenant.streams).where(Tenant.id == tenant).scalar_subquery()
        free = (
            select(row.number)
            .where(row.tenant == tenant, row.number < quota, row.expires_at <= now)
            .order_by(row.number)
            .limit(1)
            .with_for_update(of=row, skip_locked=True)
            .scalar_subquery()
        )
        take = (
            update(Permit)
            .where(Permit.tenant == tenant, Permit.number == free)
            .values(holder=holder, replica=replica, expires_at=expires_at)
            .returning(Permit.number)
            .execution_options(synchronize_session=False)
        )
        held = select(func.count()).where(Permit.tenant == tenant, Permit.expires_at > now)
        async with self._database.session() as session:
            if (await session.execute(take)).scalar_one_or_none() is None:
                return None
            return int((await session.execute(held)).scalar_one())

    async def give_back(self, holders: Collection[str]) -> None:
        if not holders:
            return
        async with self._database.session() as session:
            await session.execute(
                update(Permit).where(Permit.holder.in_(holders)).values(holder=None, replica=None, expires_at=0.0)
            )

    async def renew(self, replica: str, expires_at: float) -> None:
        """All that this replica holds, in one statement."""
        async with self._database.session() as session:
            await session.execute(update(Permit).where(Permit.replica == replica).values(expires_at=expires_at))

    async def dead_keys(self, key_ids: Collection[str], now: float) -> set[str]:
        """Those that nobody may use any more: revoked, expired, erased, or their tenant disabled."""
        if not key_ids:
            return set()
        alive = (
            select(ApiKey.id)
            .join(Tenant, ApiKey.tenant == Tenant.id)
            .where(
                ApiKey.id.in_(key_ids),
                ApiKey.revoked_at.is_(None),
                Tenant.enabled,
                (ApiKey.expires_at.is_(None)) | (ApiKey.expires_at > now),
            )
        )
        async with self._database.session() as session:
            return set(key_ids) - set((await session.scalars(alive)).all())
