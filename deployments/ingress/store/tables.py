"""What is stored of a voice. A change here needs a migration, which a test compares with it."""

from typing import Literal

from sqlalchemy import BigInteger, Float, ForeignKey, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ID_CHARS = 48
TENANT_CHARS = 64
NAME_CHARS = 256
LANGUAGE_CHARS = 35


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})


class Consent(Base):
    """A recording in which somebody agrees that a voice of theirs is made. It is kept, nobody listens to it here."""

    __tablename__ = "voice_consents"
    __table_args__ = (Index(None, "tenant", "id"),)

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(TENANT_CHARS))
    created_at: Mapped[int] = mapped_column(BigInteger)  # Unix second
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    language: Mapped[str] = mapped_column(String(LANGUAGE_CHARS))  # BCP 47
    recording: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)  # FLAC, 24 kHz mono


class Voice(Base):
    """A clip, the words in it, and the codes that the Backbone reads. A voice does not outlive its consent."""

    __tablename__ = "voices"
    __table_args__ = (Index(None, "tenant", "id"), Index(None, "consent_id"))

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(TENANT_CHARS))
    created_at: Mapped[int] = mapped_column(BigInteger)  # Unix second
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    consent_id: Mapped[str] = mapped_column(String(ID_CHARS), ForeignKey("voice_consents.id", ondelete="CASCADE"))
    transcript: Mapped[str] = mapped_column(Text)
    audio_s: Mapped[float] = mapped_column(Float(53))
    clip: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)  # FLAC, 24 kHz mono
    codes: Mapped[bytes] = mapped_column(LargeBinary)  # int16 [frames, 8]
    codec: Mapped[str] = mapped_column(String(64))  # which made the codes
    first_used_at: Mapped[int | None] = mapped_column(BigInteger)  # Unix second; a session that names it counts


Action = Literal[
    "consent.recorded",
    "consent.renamed",
    "consent.deleted",
    "voice.made",
    "voice.first_used",
    "voice.deleted",
    "reference.used",
]


class VoiceAudit(Base):
    """Who did what, when. The database refuses to change a row, or to lose one while its tenant has a consent."""

    __tablename__ = "voice_audit"
    __table_args__ = (Index(None, "tenant", "id"), Index(None, "voice_id"))

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)  # Unix second
    tenant: Mapped[str] = mapped_column(String(TENANT_CHARS))
    key_id: Mapped[str] = mapped_column(String(ID_CHARS))  # whose key it was done with; empty: nobody wrote it down
    action: Mapped[Action] = mapped_column(String(32))
    consent_id: Mapped[str] = mapped_column(String(ID_CHARS))  # empty: a clip came with a request, and no consent
    voice_id: Mapped[str | None] = mapped_column(String(ID_CHARS))
    sha256: Mapped[str | None] = mapped_column(String(64))  # of the recording or clip, as it is stored
