"""A PostgreSQL server of the tests' own, on a socket in a folder of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

USERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root


def _program(name: str) -> str:
    """Debian keeps the server's programs off the path. Skips where there are none."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(versions[-1]) if versions else None)
    if found is None:
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    return os.path.realpath(found)


def _as_user(folder: Path) -> dict[str, Any]:
    """What makes a process run as somebody else than root; the folder is given to that user."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = next((known[name] for name in USERS if name in known), None)
    if user is None:
        pytest.skip("PostgreSQL does not run as root, and there is no other user to run it as")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def server() -> Iterator[str]:
    """The folder of its socket, once it answers."""
    initdb, postgres = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="chroma-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
    data, log = folder / "data", folder / "log"
    process = None
    try:
        user = _as_user(folder)
        make = [initdb, "-D", str(data), "-U", "chroma", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
        subprocess.run(make, cwd=folder, check=True, capture_output=True, timeout=120, **user)
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with log.open("wb") as sink:
            process = subprocess.Popen([postgres, "-D", str(data), *settings], cwd=folder, stderr=sink, **user)
        _wait(folder, process, log)
        yield str(folder)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # it waits for no client
            process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host=str(folder), user="chroma", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < ends_at, log.read_text("utf-8", "replace")
            time.sleep(0.05)


def new_database(folder: str, name: str) -> str:
    """The URL of an empty database."""
    with psycopg.connect(host=folder, user="chroma", dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"postgresql://chroma@/{name}?host={folder}"
