"""Where the database is: an operator's words to a URL for each driver."""

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from chroma_models.errors import InvalidRequest

FILE = "voices.db"
POSTGRES = ("postgresql", "postgres")


def database_url(told: str | None) -> URL:
    """The URL with a driver that serves both plain and async code of SQLAlchemy, or SQLite's plain one.

    told: sqlite:///PATH or postgresql://..., None for a file in the user's data folder. Raises InvalidRequest, which
    never repeats a password.
    """
    if told is None:
        return URL.create("sqlite", database=str(_data_folder() / FILE))
    try:
        url = make_url(told)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise InvalidRequest("database_url is no URL; write sqlite:///PATH or postgresql://HOST/NAME.") from None
    kind = url.drivername.split("+")[0]
    if kind in POSTGRES:
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise InvalidRequest(f"database_url names '{kind[:32]}'; SQLite and PostgreSQL are what is supported.")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InvalidRequest("database_url names no SQLite file; every replica would have voices of its own.")
    return URL.create("sqlite", database=str(Path(url.database).expanduser().absolute()))


def async_url(url: URL) -> URL:
    return url.set(drivername="sqlite+aiosqlite") if is_sqlite(url) else url


def is_sqlite(url: URL) -> bool:
    return url.drivername == "sqlite"


def shown(url: URL) -> str:
    """For people: without a password."""
    return str(url.database) if is_sqlite(url) else url.render_as_string(hide_password=True)


def _data_folder() -> Path:
    """Where the XDG base directory specification puts a user's data."""
    named = os.environ.get("XDG_DATA_HOME")
    return (Path(named) if named else Path.home() / ".local" / "share") / "chroma-serve"
