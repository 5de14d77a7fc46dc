"""Tenants, their keys and permits, and what they used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("streams", sa.BigInteger, nullable=False),
        sa.Column("audio_s_per_minute", sa.Float(53)),
        sa.Column("audio_s_per_day", sa.Float(53)),
        sa.Column("voices", sa.BigInteger, nullable=False),
        sa.Column("priority", sa.BigInteger, nullable=False),
        sa.Column("weight", sa.Float(53), nullable=False),
        sa.Column("retention_s", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant"])
    op.create_table(
        "permits",
        sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("holder", sa.String(48)),
        sa.Column("replica", sa.String(48)),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
    op.create_index("ix_permits_replica", "permits", ["replica"])
    op.create_table(
        "usage",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(48), nullable=False),
        sa.Column("protocol", sa.String(16), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("voice", sa.String(48), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("touched_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("heard_s", sa.Float(53), nullable=False),
        sa.Column("spoken_s", sa.Float(53), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("text_tokens", sa.BigInteger, nullable=False),
        sa.Column("first_audio_s", sa.Float(53)),
        sa.Column("rtf", sa.Float(53)),
    )
    op.create_index("ix_usage_tenant_started_at", "usage", ["tenant", "started_at"])
    op.create_index("ix_usage_outcome_touched_at", "usage", ["outcome", "touched_at"])
    op.create_table(
        "spent",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("window_s", sa.BigInteger, primary_key=True),
        sa.Column("begins_at", sa.BigInteger, primary_key=True),
        sa.Column("audio_s", sa.Float(53), nullable=False),
    )


def downgrade() -> None:
    for table in ("spent", "usage", "permits", "api_keys", "tenants"):
        op.drop_table(table)
