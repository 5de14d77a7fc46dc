from pathlib import Path

import pytest

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.reference import Reference


@pytest.fixture(scope="session")
def checkpoint(tiny: Path) -> Checkpoint:
    return Checkpoint.open(tiny)


@pytest.fixture(scope="session")
def reference(checkpoint: Checkpoint) -> Reference:
    return Reference(checkpoint)
