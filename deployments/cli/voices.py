"""`chroma voices`: on the database itself, without a running server."""

import asyncio
import json
from pathlib import Path

from deployments.ingress.store.audit_store import AuditStore
from deployments.ingress.store.database import Database
from deployments.ingress.voice_audit import told_audit
from deployments.settings import Settings

TIMEOUT_S = 30.0


def audit(settings_file: Path | None, database_url: str | None, tenant: str | None, voice: str | None) -> None:
    """Print the audit trail, a JSON object a line, oldest first. Raises UnusableDatabase, StageUnavailable."""
    told = database_url if database_url is not None else Settings.load(settings_file).models.ingress.database_url

    async def run() -> None:
        database = Database(told, TIMEOUT_S)
        await database.open()
        try:
            async for row in AuditStore(database).rows(tenant, voice):
                print(json.dumps(told_audit(row)))
        finally:
            await database.close()

    asyncio.run(run())
