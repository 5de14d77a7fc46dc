"""The database's schema: made, brought up to date, compared, refused."""

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, text

from chroma_models.errors import InvalidRequest, StageUnavailable
from deployments.ingress.callers import Caller
from deployments.ingress.store.address import database_url, is_sqlite, shown
from deployments.ingress.store.database import Database
from deployments.ingress.store.schema import UnusableDatabase, _config, head, migrate, prepare
from deployments.ingress.store.tables import Base
from deployments.ingress.store.voice_store import VoiceStore
from tests.deployments.ingress.conftest import Start


def test_migrations_make_what_the_code_is_written_for(empty: str) -> None:
    url = database_url(empty)
    assert migrate(url) == head()
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        names = {i["name"] for table in Base.metadata.tables for i in inspect(connection).get_indexes(table)}
    assert {index.name for table in Base.metadata.tables.values() for index in table.indexes} == names
    engine.dispose()
    assert migrate(url) == head()  # a second time changes nothing


def test_every_migration_names_the_one_before_it() -> None:
    steps = list(ScriptDirectory.from_config(_config()).walk_revisions())
    assert [step.revision for step in reversed(steps)] == [f"{n:04d}" for n in range(1, len(steps) + 1)]


def test_many_may_migrate_at_once(empty: str) -> None:
    url = database_url(empty)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(migrate, [url] * 6)) == [head()] * 6


def test_a_start_makes_a_file_but_no_schema_in_a_server(empty: str) -> None:
    url = database_url(empty)
    if is_sqlite(url):
        prepare(url)
        file = Path(str(url.database))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600  # voices are nobody else's to read
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        return
    with pytest.raises(UnusableDatabase, match=r"is empty; run `chroma migrate`"):
        prepare(url)
    migrate(url)
    prepare(url)


def rename_revision(url: str, revision: str) -> None:
    engine = create_engine(database_url(url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
    engine.dispose()


async def test_the_schema_of_a_newer_version_is_refused_at_the_start_and_left_alone(empty: str, start: Start) -> None:
    migrate(database_url(empty))
    rename_revision(empty, "9999")
    for attempt in (prepare, migrate):
        with pytest.raises(UnusableDatabase, match=r"schema 9999, which this version does not know.*Update"):
            attempt(database_url(empty))
    with pytest.raises(UnusableDatabase, match="schema 9999"):
        await start(database_url=empty)


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty: str) -> None:
    url = database_url(empty)
    if is_sqlite(url):
        Path(str(url.database)).parent.mkdir()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE voices (id integer)"))  # in the way of the first step's second table
    with pytest.raises(UnusableDatabase, match=r"(?i)voices"):
        migrate(url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["voices"]
    engine.dispose()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("no url", "is no URL"),
        ("mysql://me:secret@db/voices", "SQLite and PostgreSQL"),
        ("sqlite://", "names no SQLite file"),
        ("sqlite:///:memory:", "names no SQLite file"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(told: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as error:
        database_url(told)
    assert "secret" not in error.value.message


def test_a_database_that_cannot_be_had_is_told_without_its_password(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    with pytest.raises(UnusableDatabase, match=r"cannot be made: .*database_url"):
        prepare(database_url(f"sqlite:///{blocked}/voices.db"))
    (tmp_path / "text").write_text("this is no database, and long enough to be looked at as one" * 20)
    with pytest.raises(UnusableDatabase, match="not a database"):
        prepare(database_url(f"sqlite:///{tmp_path / 'text'}"))
    with pytest.raises(UnusableDatabase, match="cannot be used") as error:
        prepare(database_url("postgresql://me:secret@127.0.0.1:1/voices"))
    assert "secret" not in error.value.message


@given(st.text("abc/._-", min_size=1), st.text(min_size=1))
def test_a_password_is_never_shown(host: str, password: str) -> None:
    url = database_url("postgresql://me@host/db").set(host=host, password=password + "\N{SNOWMAN}")
    assert "\N{SNOWMAN}" not in shown(url)
    assert "%E2%98%83" not in shown(url)


def test_the_default_is_a_file_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert database_url(None).database == str(tmp_path / "chroma-serve" / "voices.db")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_url(None).database == str(tmp_path / ".local/share/chroma-serve/voices.db")


def test_the_command_migrates(empty: str) -> None:
    command = [str(Path(sys.executable).parent / "chroma"), "migrate", "--database", empty]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"schema {head()}" in done.stdout
    prepare(database_url(empty))
    rename_revision(empty, "9999")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("chroma: The database ")
    assert "Traceback" not in done.stderr


async def test_a_database_that_goes_away_is_told_as_unavailable(empty: str) -> None:
    url = database_url(empty)
    migrate(url)
    database = Database(empty, timeout_s=5)
    store = VoiceStore(database)
    with pytest.raises(StageUnavailable):  # not open yet
        await store.voice("public", f"voice_{'0' * 32}")
    await database.open()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE voices"))
    engine.dispose()
    with pytest.raises(StageUnavailable) as error:
        await store.voice("public", f"voice_{'0' * 32}")
    assert "voices" not in error.value.message.replace("store of voices", "")
    await database.close()


async def test_a_lock_held_by_another_is_waited_for_and_then_told(tmp_path: Path) -> None:
    told = f"sqlite:///{tmp_path / 'voices.db'}"
    database = Database(told, timeout_s=1)
    await database.open()
    store = VoiceStore(database)
    engine = create_engine(database_url(told))
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StageUnavailable):
            await store.add_consent(Caller("public", "open"), "me", "en", b"")
        rows, more = await store.page(*page_of())  # readers do not wait for a writer
        assert (list(rows), more) == ([], False)
    engine.dispose()
    assert (await store.add_consent(Caller("public", "open"), "me", "en", b"")).name == "me"
    await database.close()


def page_of() -> tuple[type, str, None, int]:
    from deployments.ingress.store.tables import Consent

    return Consent, "public", None, 10
