"""Voices and consents of tenants. What is another tenant's is answered as what never was.

What is done with them is written down in the same transaction.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import CursorResult, Result, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import undefer

from chroma_models.errors import InvalidRequest, QuotaExceeded, UnknownVoice
from deployments.ingress.callers import Caller
from deployments.ingress.errors import UnknownConsent
from deployments.ingress.store.database import Database
from deployments.ingress.store.tables import Action, Consent, Voice, VoiceAudit
from deployments.ingress.store.tenant_tables import Tenant

Row = TypeVar("Row", Voice, Consent)
Listed = TypeVar("Listed", Voice, Consent, VoiceAudit)
ID = re.compile(r"(?:voice|cons|audit)_[0-9a-f]{32}")


class VoiceStore:
    """Every method is one short transaction. Raises StageUnavailable where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_consent(self, caller: Caller, name: str, language: str, recording: bytes) -> Consent:
        consent = Consent(
            id=_new_id("cons"),
            tenant=caller.tenant,
            created_at=int(time.time()),
            name=name,
            language=language,
            recording=recording,
        )
        async with self._database.session() as session:
            session.add(consent)
            session.add(_audit(caller, "consent.recorded", consent.id, recording=recording))
        return consent

    async def consent(self, tenant: str, consent_id: str, param: str | None = None) -> Consent:
        """Raises UnknownConsent."""
        return _known_consent(await self._one(Consent, tenant, consent_id), param)

    async def rename_consent(self, caller: Caller, consent_id: str, name: str) -> Consent:
        """Raises UnknownConsent."""
        consent = await self.consent(caller.tenant, consent_id)
        async with self._database.session() as session:
            await session.execute(update(Consent).where(Consent.id == consent_id).values(name=name))
            session.add(_audit(caller, "consent.renamed", consent_id))
        consent.name = name
        return consent

    async def delete_consent(self, caller: Caller, consent_id: str) -> None:
        """And with it the voices that were made with it. Raises UnknownConsent."""
        consent = await self.consent(caller.tenant, consent_id)
        async with self._database.session() as session:
            voices = await session.scalars(delete(Voice).where(Voice.consent_id == consent.id).returning(Voice.id))
            session.add_all(_audit(caller, "voice.deleted", consent.id, voice_id) for voice_id in voices.all())
            done = await session.execute(delete(Consent).where(Consent.id == consent.id))
            if _count(done):
                session.add(_audit(caller, "consent.deleted", consent.id))

    async def add_voice(
        self,
        caller: Caller,
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
            tenant=caller.tenant,
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
                    await session.execute(
                        select(Tenant.id).where(Tenant.id == caller.tenant).with_for_update()
                    )  # one by one
                    count = await session.scalar(select(func.count()).where(Voice.tenant == caller.tenant))
                    if (count or 0) >= most:
                        raise QuotaExceeded(
                            f"This tenant has the {most} voices that it may; delete one.", None, "voices"
                        )
                session.add(voice)
                session.add(_audit(caller, "voice.made", consent_id, voice.id, clip))
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

    async def first_used(self, caller: Caller, voice: Voice) -> None:
        """Written down once, whoever else asks for the voice meanwhile."""
        this = (Voice.id == voice.id, Voice.first_used_at.is_(None))
        async with self._database.session() as session:
            done = await session.execute(update(Voice).where(*this).values(first_used_at=int(time.time())))
            if _count(done):
                session.add(_audit(caller, "voice.first_used", voice.consent_id, voice.id))

    async def reference_used(self, caller: Caller, pcm: bytes) -> None:
        """A voice that came as a clip: float32 samples at 24 kHz, which are not kept. It has no consent here."""
        async with self._database.session() as session:
            session.add(_audit(caller, "reference.used", "", recording=pcm))

    async def delete_voice(self, caller: Caller, voice_id: str) -> None:
        """Raises UnknownVoice."""
        voice = await self.voice(caller.tenant, voice_id)
        async with self._database.session() as session:
            done = await session.execute(delete(Voice).where(Voice.id == voice.id))
            if _count(done):
                session.add(_audit(caller, "voice.deleted", voice.consent_id, voice.id))

    async def page(
        self, kind: type[Listed], tenant: str, after: str | None, limit: int
    ) -> tuple[Sequence[Listed], bool]:
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


def _audit(
    caller: Caller, action: Action, consent_id: str, voice_id: str | None = None, recording: bytes | None = None
) -> VoiceAudit:
    return VoiceAudit(
        id=_new_id("audit"),
        at=int(time.time()),
        tenant=caller.tenant,
        key_id=caller.key_id,
        action=action,
        consent_id=consent_id,
        voice_id=voice_id,
        sha256=None if recording is None else hashlib.sha256(recording).hexdigest(),
    )


def _count(done: Result[Any]) -> int:
    assert isinstance(done, CursorResult)
    return done.rowcount


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
