"""A server's signing key, and its public half as a file."""

from pathlib import Path

import pytest

from tests.deployments.ingress.provenance.replies import Signer


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path)
