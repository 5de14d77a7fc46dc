"""Voices and the consents they need."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "voice_consents",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("recording", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_voice_consents_tenant_id", "voice_consents", ["tenant", "id"])
    op.create_table(
        "voices",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("consent_id", sa.String(48), sa.ForeignKey("voice_consents.id", ondelete="CASCADE"), nullable=False),
        sa.Column("transcript", sa.Text, nullable=False),
        sa.Column("audio_s", sa.Float(53), nullable=False),
        sa.Column("clip", sa.LargeBinary, nullable=False),
        sa.Column("codes", sa.LargeBinary, nullable=False),
        sa.Column("codec", sa.String(64), nullable=False),
    )
    op.create_index("ix_voices_tenant_id", "voices", ["tenant", "id"])
    op.create_index("ix_voices_consent_id", "voices", ["consent_id"])


def downgrade() -> None:
    op.drop_table("voices")
    op.drop_table("voice_consents")
