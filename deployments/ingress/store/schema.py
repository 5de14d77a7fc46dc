"""The database's schema, brought to the code's or refused. Blocking: meant for a worker thread or the command line."""

import fcntl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, select, text
from sqlalchemy.exc import SQLAlchemyError

from chroma_models.errors import ChromaError
from deployments.ingress.store.address import is_sqlite, shown
from deployments.ingress.store.tenant_tables import ApiKey

BUSY_S = 30.0  # for another process's migration to end
CONNECT_S = 10  # for a server to answer at all
ONE_AT_A_TIME = 0x63_68_72_6F_6D_61  # key of PostgreSQL's advisory lock


class UnusableDatabase(ChromaError):
    """The database cannot be opened, or its schema is not the one this code is written for."""

    code = "unusable_database"


def prepare(url: URL) -> None:
    """What a replica does at its start: a SQLite file is made and brought up to date, anything else is checked.

    Raises UnusableDatabase.
    """
    if is_sqlite(url):
        migrate(url)
        return
    with _connected(url) as connection:
        _check(connection, url)
        found = _revision(connection)
    if found != head():
        state = "is empty" if found is None else f"has the older schema {found}"
        raise UnusableDatabase(f"The database {shown(url)} {state}; run `chroma migrate`, which makes {head()} of it.")


def migrate(url: URL) -> str:
    """Bring the schema up to the code's; what is there already is left. Returns its revision.

    Several processes may try at once. Raises UnusableDatabase, with the database as it was.
    """
    with _sole_migrator(url), _connected(url) as connection:
        if not is_sqlite(url):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
        _check(connection, url)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()


def has_keys(url: URL) -> bool:
    """Whether anybody has an API key. Raises UnusableDatabase."""
    with _connected(url) as connection:
        return connection.execute(select(ApiKey.id).limit(1)).first() is not None


def head() -> str:
    """The revision this code is written for."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "deployments.ingress.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check(connection: Connection, url: URL) -> None:
    """Raises UnusableDatabase where another version of this code has been at work."""
    found = _revision(connection)
    try:
        if found is not None:
            ScriptDirectory.from_config(_config()).get_revision(found)
    except CommandError:
        raise UnusableDatabase(
            f"The database {shown(url)} has schema {found}, which this version does not know: it knows up to {head()}. "
            "Update this server, or set database_url to another database."
        ) from None


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    """One transaction, and no pool behind it."""
    wait = {"timeout": BUSY_S} if is_sqlite(url) else {"connect_timeout": CONNECT_S}
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args=wait)
        if is_sqlite(url):
            _begin_by_hand(engine)
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        why = " ".join(str(getattr(error, "orig", None) or error).split())[:300].rstrip(".?!")
        raise UnusableDatabase(
            f"The database {shown(url)} cannot be used: {why}. Start or mend it, or set models.ingress.database_url "
            "to another."
        ) from error


def _begin_by_hand(engine: Engine) -> None:
    """So that statements that change the schema take part in the transaction: sqlite3 by itself commits before them."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: object, _: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]
        with closing(connection.cursor()) as cursor:  # type: ignore[attr-defined]
            cursor.execute("PRAGMA journal_mode=WAL")  # stays with the file: readers and a writer do not wait

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _sole_migrator(url: URL) -> Iterator[None]:
    """For SQLite the file, which only its owner may read, and a lock beside it: turning WAL on waits for nobody."""
    if not is_sqlite(url):
        yield
        return
    file = Path(str(url.database))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        lock = file.with_name(f"{file.name}.lock").open("w")
    except OSError as error:
        raise UnusableDatabase(
            f"The database {file} cannot be made: {error.strerror}. Set models.ingress.database_url to another place."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
