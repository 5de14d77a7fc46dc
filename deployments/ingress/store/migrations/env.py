"""Run by Alembic; schema.py hands the connection over, inside its transaction."""

from alembic import context

from deployments.ingress.store import tenant_tables  # noqa: F401  # its tables belong to the metadata too
from deployments.ingress.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # SQLite too: schema.py begins its transactions itself
)
with context.begin_transaction():
    context.run_migrations()
