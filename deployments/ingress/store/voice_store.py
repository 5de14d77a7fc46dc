"""Voices and consents of tenants. What is another tenant's is answered as what never was."""

import re
import secrets
import time
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import undefer

from chroma_models.errors import InvalidRequest, QuotaExceeded, UnknownVoice
from deployments.ingress.errors import UnknownConsent
from deployments.ingress.store.database import Database
from deployments.ingress.store.tables import Consent, Voice
from deployments.ingress.store.tenant_tables import Tenant

Row = TypeVar("Row", Voice, Consent)
ID = re.compile(r"(?:voice|cons)_[0-9a-f]{32}")


class VoiceStore:
    """Every method is one short transaction. Raises StageUnavailable where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_consent(self, tenant: str, name: str, language: str, recording: bytes) -> Consent:
        consent = Consent(
            id=_new_id("cons"),
            tenant=tenant,
            created_at=int(time.time()),
            name=name,
            language=language,
            recording=recording,
        )
        async with self._database.session() as session:
            session.add(consent)
        return consent

    async def consent(self, tenant: str, consent_id: str, param: str | None = None) -> Consent:
        """Raises UnknownConsent."""
        return _known_consent(await self._one(Consent, tenant, consent_id), param)

    async def rename_consent(self, tenant: str, consent_id: str, name: str) -> Consent:
        """Raises UnknownConsent."""
        consent = await self.consent(tenant, consent_id)
        async with self._database.session() as session:
            await session.execute(update(Consent).where(Consent.id == consent_id).values(name=name))
        consent.name = name
        return consent

    async def delete_consent(self, tenant: str, consent_id: str) -> None:
        """And with it the voices that were made with it. Raises UnknownConsent."""
        if not await self._delete(Consent, tenant, consent_id):
            _known_consent(None)

    async def add_voice(
        self,
        tenant: str,
        name: str,
        consent_id: str,
        transcript: str,
        audio_s: float,
        clip: bytes,
        codes: bytes,
        codec: str,
        most: int | None = None,
    ) -> Voice:
        """most: voices the tenant may have. Raises QuotaExceeded, or UnknownConsent where the consent has just gone."""
        voice = Voice(
            id=_new_id("voice"),
            tenant=tenant,
            created_at=int(time.time()),
            name=name,
            consent_id=consent_id,
            transcript=transcript,
            audio_s=audio_s,
            clip=clip,
            codes=codes,
            codec=codec,
        )
        try:
            async with self._database.session() as session:
                if most is not None:
                    await session.execute(select(Tenant.id).where(Tenant.id == tenant).with_for_update())  # one by one
                    count = await session.scalar(select(func.count()).where(Voice.tenant == tenant))
                    if (count or 0) >= most:
                        raise QuotaExceeded(
                            f"This tenant has the {most} voices that it may; delete one.", None, "voices"
                        )
                session.add(voice)
        except IntegrityError:
            _known_consent(None, "consent")
        return voice

    async def voice(self, tenant: str, voice_id: str, param: str | None = None) -> Voice:
        """Raises UnknownVoice."""
        return _known_voice(await self._one(Voice, tenant, voice_id), param)

    async def clip(self, tenant: str, voice_id: str, param: str | None = None) -> bytes:
        """The voice's clip, FLAC. Raises UnknownVoice."""
        return _known_voice(await self._one(Voice, tenant, voice_id, whole=True), param).clip

    async def set_codes(self, voice_id: str, codes: bytes, codec: str) -> None:
        """What another codec makes of the clip. Does nothing where the voice has just gone."""
        async with self._database.session() as session:
            await session.execute(update(Voice).where(Voice.id == voice_id).values(codes=codes, codec=codec))

    async def delete_voice(self, tenant: str, voice_id: str) -> None:
        """Raises UnknownVoice."""
        if not await self._delete(Voice, tenant, voice_id):
            _known_voice(None)

    async def page(self, kind: type[Row], tenant: str, after: str | None, limit: int) -> tuple[Sequence[Row], bool]:
        """At most limit rows, newest first, and whether there are more. after: the id the page before ended with.

        Raises InvalidRequest where after is no id.
        """
        wanted = select(kind).where(kind.tenant == tenant).order_by(kind.id.desc()).limit(limit + 1)
        if after is not None:
            if not ID.fullmatch(after):
                raise InvalidRequest("'after' is no id of a list before; leave it out to begin anew.", "after")
            wanted = wanted.where(kind.id < after)
        async with self._database.session() as session:
            rows = (await session.scalars(wanted)).all()
        return rows[:limit], len(rows) > limit

    async def _one(self, kind: type[Row], tenant: str, row_id: str, whole: bool = False) -> Row | None:
        if not ID.fullmatch(row_id):
            return None
        wanted = select(kind).where(kind.tenant == tenant, kind.id == row_id)
        if whole:
            wanted = wanted.options(undefer("*"))
        async with self._database.session() as session:
            return await session.scalar(wanted)

    async def _delete(self, kind: type[Row], tenant: str, row_id: str) -> bool:
        if not ID.fullmatch(row_id):
            return False
        async with self._database.session() as session:
            done = await session.execute(delete(kind).where(kind.tenant == tenant, kind.id == row_id))
        assert isinstance(done, CursorResult)
        return done.rowcount > 0


def _new_id(kind: str) -> str:
    """Ids sort by the millisecond they were made in, so a page can go on from an id that is gone."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def _known_voice(voice: Voice | None, param: str | None = None) -> Voice:
    if voice is None:
        raise UnknownVoice("This voice does not exist; GET /v1/audio/voices lists yours.", param)
    return voice


def _known_consent(consent: Consent | None, param: str | None = None) -> Consent:
    if consent is None:
        raise UnknownConsent("This consent does not exist; GET /v1/audio/voice_consents lists yours.", param)
    return consent
