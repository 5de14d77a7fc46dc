"""The whole pipeline runs where there is torch, numpy, safetensors and transformers, and what those need."""

import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

GIVEN = ("torch", "numpy", "safetensors", "transformers")


def closure(names: tuple[str, ...]) -> set[str]:
    """The distributions named, and all that they require here."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            needed = [Requirement(line) for line in distribution(name).requires or ()]
            left += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of packages with nothing in it but those."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in closure(GIVEN):
        files = distribution(name).files or []
        base = Path(str(distribution(name).locate_file("")))
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(base / top)
    return folder


@pytest.mark.slow
def test_speech_on_a_bare_machine(tmp_path: Path, tiny: Path, bare: Path) -> None:
    out = tmp_path / "out.json"
    asked = ["--checkpoint", str(tiny), "--streams", "1,3", "--rounds", "1", "--reply-s", "0.4", "--arrive-s", "0.1"]
    command = [sys.executable, "-S", "-m", "loadtest.pipeline_bench", *asked, "--device", "cpu", "--json", str(out)]
    environment = {"PYTHONPATH": f"{bare}:{ROOT}", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    told = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert told.returncode == 0, told.stderr[-2000:]
    alone, three = json.loads(out.read_text())["by_streams"]
    assert alone["audio_s"] == pytest.approx(0.4)
    assert three["audio_s"] == pytest.approx(1.2)
    assert three["first_audio_s"]["n"] == 3
