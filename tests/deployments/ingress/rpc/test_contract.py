"""proto/ is the contract: linted, and the committed stubs are what it says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

STUBS = ROOT / "deployments" / "ingress" / "rpc" / "stubs"
ENVIRONMENT = {**os.environ, "BIN": str(Path(sys.executable).parent)}


def test_the_stubs_are_made_from_the_contract(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "stubs.sh", tmp_path], check=True, env=ENVIRONMENT, timeout=120)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in STUBS.glob("speech_service*")}
    assert len(made) == 3
    assert made == kept, "run make proto"


@pytest.mark.skipif(shutil.which("npm") is None, reason="buf comes from npm")
def test_the_contract_is_lint_clean() -> None:
    command = [ROOT / "scripts" / "lint_proto.sh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
