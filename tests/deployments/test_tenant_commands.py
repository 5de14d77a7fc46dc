"""`chroma tenants` and `chroma keys`, as the README shows them, on a database that a server uses too."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chroma_models.errors import ChromaError
from deployments.cli.main import app
from tests.readme import blocks

BLOCK = next(block for block in blocks("bash") if "chroma tenants add" in block)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    url = f"sqlite:///{tmp_path / 'voices.db'}"
    monkeypatch.setenv("CHROMA_MODELS__INGRESS__DATABASE_URL", url)
    return url


def run(line: str) -> str:
    """What a command prints. Raises what it is refused with."""
    done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=True)
    if isinstance(done.exception, ChromaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_readmes_commands_from_the_first_to_the_last(url: str) -> None:
    key_id, told = "", dict[str, str]()
    for line in BLOCK.splitlines():
        line = line.split("#")[0].strip().replace("KEY_ID", key_id)
        said = run(line)
        if found := re.search(r"ck_live_([0-9a-f]{16})_", said):
            key_id = found[1]
        told[" ".join(line.split()[1:3])] = said
    assert "50" in told["tenants list"]
    assert "36000" in told["tenants list"]
    assert key_id in told["keys list"]
    assert "laptop" in told["keys list"]
    assert "ck_live" not in told["keys list"]
    assert told["tenants erase"] == "acme: 0 consents with their voices, 1 keys, 0 rows of usage.\n"
    with pytest.raises(ChromaError, match="There is no tenant 'acme'"):
        run("chroma keys list acme")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chroma tenants add 'a b'", "id"),
        ("chroma tenants add zoo --priority highest", "priority"),
        ("chroma tenants add acme", "There is a tenant 'acme' already"),
        ("chroma tenants change nobody --streams 2", "There is no tenant 'nobody'"),
        ("chroma keys add nobody", "There is no tenant 'nobody'"),
        ("chroma keys add acme --scope everything", "scopes"),
        ("chroma keys revoke acme 0123", "has no key '0123'"),
        ("chroma tenants list --database oracle://host/db", "SQLite and PostgreSQL"),
    ],
)
def test_a_mistake_says_what_is_wrong(url: str, line: str, words: str) -> None:
    run("chroma tenants add acme")
    with pytest.raises(ChromaError) as told:
        run(line)
    assert words in f"{told.value.message} {getattr(told.value, 'param', '')}"


def test_zero_takes_a_limit_away(url: str) -> None:
    run("chroma tenants add acme --audio-s-per-day 77")
    assert "77" in run("chroma tenants list")
    assert "77" not in run("chroma tenants change acme --audio-s-per-day 0")
    assert "False" in run("chroma tenants change acme --disable")
