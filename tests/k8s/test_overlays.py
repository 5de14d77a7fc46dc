"""Every overlay builds, and nothing that can be known without a cluster is wrong with it."""

from pathlib import Path

import pytest

from deployments.render.manifests import manifests, texts
from deployments.settings import Settings
from tests.k8s import crds, validate
from tests.k8s.kustomize import K8S, OVERLAYS, RENDERED, built, of_kind

FOLDERS = [K8S / "base", *(K8S / "overlays" / name for name in OVERLAYS)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_builds_and_is_right(folder: Path) -> None:
    crds.needed()
    assert validate.complaints(built(folder)) == []


@pytest.mark.parametrize("folder", RENDERED, ids=lambda folder: folder.name)
def test_what_is_committed_is_what_the_settings_render(folder: Path) -> None:
    for name, text in texts(Settings.load(folder / "settings.yaml")).items():
        assert (folder / name).read_text(encoding="utf-8") == text, f"render {folder.name} again"


@pytest.mark.parametrize("folder", RENDERED, ids=lambda folder: folder.name)
def test_nothing_of_the_base_shines_through_what_an_overlay_renders(folder: Path) -> None:
    found = built(folder)
    for rendered in manifests(Settings.load(folder / "settings.yaml")).values():
        assert of_kind(found, rendered["kind"], rendered["metadata"]["name"])["spec"] == rendered["spec"]


def test_the_overlays_are_those_that_were_asked_for() -> None:
    wanted = "aws-p5en azure-nd-h200-v5 dev-cpu gke-a3-ultra h200-single h200-split incremental-upgrade"
    assert " ".join(OVERLAYS) == wanted
