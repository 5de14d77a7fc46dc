"""What the tests share: where the goldens are, and tiny checkpoints made on the spot."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers of the tests keep what outlives them: never the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of reference outputs, from CHROMA_GOLDENS; by default beside the repository."""
    folder = Path(os.environ.get("CHROMA_GOLDENS", ROOT.parent / "shared" / "goldens")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no goldens at {folder}: set CHROMA_GOLDENS to the folder that holds A and C")
    return folder


@pytest.fixture(scope="session", params=["A", "C"])
def golden(request: pytest.FixtureRequest, goldens: Path) -> Path:
    """Each golden checkpoint's folder in turn."""
    return goldens / str(request.param)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny checkpoint."""
    from chroma_models.checkpoint.random import make_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(folder, "tiny", seed=0)
    return folder
