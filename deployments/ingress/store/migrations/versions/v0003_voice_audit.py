"""What was done with consents and voices, and by whom: rows that can be added, and neither changed nor taken out."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# A trail goes when all goes that it is about: no row of a tenant can be deleted while the tenant has a consent.
SQLITE = (
    "CREATE TRIGGER voice_audit_unchanged BEFORE UPDATE ON voice_audit"
    " BEGIN SELECT RAISE(ABORT, 'voice_audit can only be added to'); END",
    "CREATE TRIGGER voice_audit_kept BEFORE DELETE ON voice_audit"
    " WHEN EXISTS (SELECT 1 FROM voice_consents WHERE tenant = OLD.tenant)"
    " BEGIN SELECT RAISE(ABORT, 'voice_audit can only be added to'); END",
)
POSTGRESQL = (
    "CREATE FUNCTION voice_audit_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT 1 FROM voice_consents WHERE tenant = OLD.tenant) THEN"
    " RETURN OLD; END IF;"
    " RAISE EXCEPTION 'voice_audit can only be added to'; END $$",
    "CREATE TRIGGER voice_audit_kept BEFORE UPDATE OR DELETE ON voice_audit"
    " FOR EACH ROW EXECUTE FUNCTION voice_audit_kept()",
)

# What was there before anybody wrote it down, by nobody known.
BEFORE = (
    "INSERT INTO voice_audit (id, at, tenant, key_id, action, consent_id, voice_id, sha256)"
    " SELECT 'audit_' || substr(id, 6), created_at, tenant, '', 'consent.recorded', id, NULL, NULL FROM voice_consents",
    "INSERT INTO voice_audit (id, at, tenant, key_id, action, consent_id, voice_id, sha256)"
    " SELECT 'audit_' || substr(id, 7), created_at, tenant, '', 'voice.made', consent_id, id, NULL FROM voices",
)


def upgrade() -> None:
    op.create_table(
        "voice_audit",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(48), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("consent_id", sa.String(48), nullable=False),
        sa.Column("voice_id", sa.String(48)),
        sa.Column("sha256", sa.String(64)),
    )
    op.create_index("ix_voice_audit_tenant_id", "voice_audit", ["tenant", "id"])
    op.create_index("ix_voice_audit_voice_id", "voice_audit", ["voice_id"])
    op.add_column("voices", sa.Column("first_used_at", sa.BigInteger))
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in (*(SQLITE if sqlite else POSTGRESQL), *BEFORE):
        op.execute(statement)


def downgrade() -> None:
    op.drop_column("voices", "first_used_at")
    op.drop_table("voice_audit")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION voice_audit_kept")
