"""What is stored of tenants: their keys, their permits, and what they used. A change here needs a migration."""

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from deployments.ingress.store.tables import ID_CHARS, NAME_CHARS, TENANT_CHARS, Base

SCOPES_CHARS = 64
OUTCOME_CHARS = 32
RUNNING, LOST = "running", "lost"


class Tenant(Base):
    """A customer, and the share that is theirs. None: without a limit."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(TENANT_CHARS), primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)  # Unix second
    enabled: Mapped[bool] = mapped_column(Boolean)
    streams: Mapped[int] = mapped_column(BigInteger)  # at once: sessions, calls and requests
    audio_s_per_minute: Mapped[float | None] = mapped_column(Float(53))  # spoken to them, in a minute of the clock
    audio_s_per_day: Mapped[float | None] = mapped_column(Float(53))  # in a day, UTC
    voices: Mapped[int] = mapped_column(BigInteger)  # stored
    priority: Mapped[int] = mapped_column(BigInteger)  # lower goes first
    weight: Mapped[float] = mapped_column(Float(53))  # of their share where streams wait for each other
    retention_s: Mapped[int] = mapped_column(BigInteger)  # how long words of their replies may be kept; 0: not


class ApiKey(Base):
    """Never the key itself: its hash under a key that is not in the database."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "tenant"),)

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(TENANT_CHARS), ForeignKey("tenants.id", ondelete="CASCADE"))
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    scopes: Mapped[str] = mapped_column(String(SCOPES_CHARS))  # separated by spaces
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class Permit(Base):
    """A tenant's right to one stream, taken while it is held and has not lapsed. A tenant has as many as its quota."""

    __tablename__ = "permits"
    __table_args__ = (Index(None, "replica"),)

    tenant: Mapped[str] = mapped_column(
        String(TENANT_CHARS), ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # from 0
    holder: Mapped[str | None] = mapped_column(String(ID_CHARS))  # a stream
    replica: Mapped[str | None] = mapped_column(String(ID_CHARS))  # that renews it
    expires_at: Mapped[float] = mapped_column(Float(53))  # Unix second; 0 where nobody holds it


class UsageRow(Base):
    """One response. Written when it begins, touched while it lives, closed when it ends or nobody touches it."""

    __tablename__ = "usage"
    __table_args__ = (Index(None, "tenant", "started_at"), Index(None, "outcome", "touched_at"))

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(TENANT_CHARS))
    key_id: Mapped[str] = mapped_column(String(ID_CHARS))
    protocol: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(NAME_CHARS))
    voice: Mapped[str] = mapped_column(String(ID_CHARS))
    started_at: Mapped[float] = mapped_column(Float(53))  # Unix seconds
    touched_at: Mapped[float] = mapped_column(Float(53))
    ended_at: Mapped[float | None] = mapped_column(Float(53))
    outcome: Mapped[str] = mapped_column(
        String(OUTCOME_CHARS)
    )  # running, completed, incomplete, cancelled, lost, a code
    heard_s: Mapped[float] = mapped_column(Float(53))  # audio that the turn brought along
    spoken_s: Mapped[float] = mapped_column(Float(53))  # audio that was delivered
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    text_tokens: Mapped[int] = mapped_column(BigInteger)
    first_audio_s: Mapped[float | None] = mapped_column(Float(53))
    rtf: Mapped[float | None] = mapped_column(Float(53))


class Spent(Base):
    """Seconds of audio delivered to a tenant in a window of time, of all replicas together."""

    __tablename__ = "spent"

    tenant: Mapped[str] = mapped_column(String(TENANT_CHARS), primary_key=True)
    window_s: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # 60 or 86400
    begins_at: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # Unix second
    audio_s: Mapped[float] = mapped_column(Float(53))
