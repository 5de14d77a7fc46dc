"""A name becomes a folder with just what is needed, or a sentence that says what to do."""

import errno
import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors as hub
import pytest

from chroma_models.checkpoint.fetch import resolve
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import CheckpointError
from tests.chroma_models.checkpoint.copies import copy

REPO = "FlashLabs/Chroma-4B"


class Hub:
    """Stands where snapshot_download does: one repository, and the files that were asked for."""

    def __init__(self, remote: Path, cache: Path) -> None:
        self.remote, self.cache = remote, cache
        self.revisions: list[str | None] = []

    def snapshot_download(self, repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert repo == REPO
        self.revisions.append(revision)
        snapshot = self.cache / "c0ffee"
        snapshot.mkdir(exist_ok=True)
        for path in self.remote.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                (snapshot / path.name).write_bytes(path.read_bytes())
        return str(snapshot)

    @property
    def fetched(self) -> set[str]:
        return {path.name for path in (self.cache / "c0ffee").iterdir()}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Hub]:
    def start(remote: Path) -> Hub:
        (tmp_path / "cache").mkdir()
        hub = Hub(remote, tmp_path / "cache")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
        return hub

    return start


UNWANTED = ("pytorch_model.bin", "consolidated.pt", "modeling_chroma.py", "README.md", "vision.safetensors")


def test_a_folder_is_itself(tiny: Path) -> None:
    assert resolve(str(tiny)) == tiny


def test_a_sharded_repository_gives_what_is_needed_of_one_commit(
    tiny: Path, tmp_path: Path, serve: Callable[[Path], Hub]
) -> None:
    remote = copy(tiny, tmp_path / "remote", shards=2)
    index = remote / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["thinker.visual.merger.ln_q.weight"] = "vision.safetensors"
    index.write_text(json.dumps(listed))
    for name in UNWANTED:
        (remote / name).write_text("unwanted")
    hub, told = serve(remote), list[str]()
    folder = resolve(REPO, told.append)
    assert Checkpoint.open(folder).digest == Checkpoint.open(tiny).digest
    assert hub.fetched == {path.name for path in remote.iterdir()} - set(UNWANTED)
    assert hub.revisions == [None, "c0ffee"]
    assert "2 weight files" in told[-1]


def test_an_unsharded_repository_opens(tiny: Path, serve: Callable[[Path], Hub]) -> None:
    serve(tiny)
    assert Checkpoint.open(resolve(REPO)).digest == Checkpoint.open(tiny).digest


def test_another_model_is_refused_before_its_weights_are_fetched(
    tiny: Path, tmp_path: Path, serve: Callable[[Path], Hub]
) -> None:
    remote = copy(tiny, tmp_path / "remote")
    (remote / "config.json").write_text('{"model_type": "llama"}')
    hub = serve(remote)
    with pytest.raises(CheckpointError, match="'llama', not 'chroma'"):
        resolve(REPO)
    assert "model.safetensors" not in hub.fetched


def _response(status: int) -> Any:
    # The response class of whichever client this hub is built on.
    client = __import__(hub.HfHubHTTPError.__mro__[1].__module__.split(".")[0])
    return client.Response(status, request=client.Request("GET", f"https://huggingface.co/{REPO}"))


def _because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _http(kind: type[hub.HfHubHTTPError], status: int) -> Exception:
    return kind("refused", response=_response(status))


FAILURES: dict[str, tuple[Callable[[], Exception], str]] = {
    "gated": (lambda: _http(hub.GatedRepoError, 403), r"accept its licence at https://\S+Chroma-4B.* HF_TOKEN"),
    "missing or private": (lambda: _http(hub.RepositoryNotFoundError, 404), "check the spelling.* HF_TOKEN"),
    "bad token": (lambda: _http(hub.HfHubHTTPError, 401), "HF_TOKEN"),
    "token without rights": (
        lambda: _because(hub.LocalEntryNotFoundError("wrapped"), _http(hub.HfHubHTTPError, 403)),
        "token may not read",
    ),
    "no network": (lambda: hub.LocalEntryNotFoundError("no connection"), "check the network"),
    "offline mode": (
        lambda: _because(hub.LocalEntryNotFoundError("wrapped"), hub.OfflineModeIsEnabled("offline")),
        "HF_HUB_OFFLINE is set",
    ),
    "disk full": (lambda: OSError(errno.ENOSPC, "No space left on device"), "disk is full.* HF_HOME"),
    "hub down": (lambda: _http(hub.HfHubHTTPError, 503), "could not be fetched.* Run this again"),
    "not an id": (lambda: hub.HFValidationError("Repo id must use alphanumeric chars"), "no Hugging Face id"),
    "connection cut": (lambda: ConnectionResetError("reset by peer"), "could not be fetched.* Run this again"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_says_what_to_do(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, advice = FAILURES[failure]

    def fail(*_: object, **__: object) -> str:
        raise make()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=advice) as caught:
        resolve(REPO)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing/here", "nothing", "a/b/c", ""])
def test_a_name_that_is_neither_folder_nor_id_asks_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="no folder"):
        resolve(name)


def test_a_file_is_no_checkpoint(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        resolve(str(tiny / "config.json"))
