"""Who did what with which consent and voice, for whoever has to answer for it."""

from collections.abc import AsyncIterator

from sqlalchemy import select

from deployments.ingress.store.database import Database
from deployments.ingress.store.tables import VoiceAudit

AT_ONCE = 1000


class AuditStore:
    """Reads alone: VoiceStore writes each row in the transaction of what it tells of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rows(self, tenant: str | None = None, voice_id: str | None = None) -> AsyncIterator[VoiceAudit]:
        """Of one tenant or of all, of one voice or of all; oldest first. Raises StageUnavailable."""
        wanted = select(VoiceAudit).order_by(VoiceAudit.id).limit(AT_ONCE)
        if tenant is not None:
            wanted = wanted.where(VoiceAudit.tenant == tenant)
        if voice_id is not None:
            wanted = wanted.where(VoiceAudit.voice_id == voice_id)
        after = ""
        while True:
            async with self._database.session() as session:
                rows = (await session.scalars(wanted.where(VoiceAudit.id > after))).all()
            for row in rows:
                yield row
            if len(rows) < AT_ONCE:
                return
            after = rows[-1].id
