"""What `kubectl kustomize` makes of a folder, once each."""

import shutil
import subprocess
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))
RENDERED = sorted(path.parent for path in K8S.rglob("settings.yaml"))

Json = dict[str, Any]


def built(folder: Path) -> list[Json]:
    """Its manifests, a copy to change. Skips where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; Debian's kubernetes-client has it")
    return deepcopy(_built(folder))


@cache
def _built(folder: Path) -> list[Json]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def of_kind(manifests: list[Json], kind: str, name: str | None = None) -> Json:
    (found,) = [each for each in manifests if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found
