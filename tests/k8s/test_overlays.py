"""Every overlay builds, and nothing that can be known without a cluster is wrong with it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def load_test(folder: Path) -> list[dict[str, Any]]:
    """An overlay with the load test beside it, as a cluster gets them."""
    job = yaml.safe_load((folder / "load-test.yaml").read_text(encoding="utf-8"))
    job["metadata"]["namespace"] = "chroma"  # kubectl -n
    return [*built(folder), *built(K8S / "load-test"), job]


@pytest.mark.parametrize("folder", RENDERED, ids=lambda folder: folder.name)
def test_the_load_test_fits_beside_it(folder: Path) -> None:
    crds.needed()
    assert validate.complaints(load_test(folder)) == []


@pytest.mark.parametrize("broken", ["image", "secret", "root", "field"])
def test_a_broken_load_test_is_caught(broken: str) -> None:
    crds.needed()
    found = load_test(K8S / "overlays" / "dev-cpu")
    pod = found[-1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    change: dict[str, tuple[dict[str, Any], str, Any, str]] = {
        "image": (container, "image", "elsewhere/chroma:1", "not the head's"),
        "secret": (container["env"][-1]["valueFrom"]["secretKeyRef"], "name", "other", "nobody makes the Secret"),
        "root": (pod["securityContext"], "runAsNonRoot", False, "runs as root"),
        "field": (found[-1]["spec"], "completionModus", "Indexed", "completionModus"),
    }
    where, key, value, words = change[broken]
    where[key] = value
    assert any(words in complaint for complaint in validate.complaints(found))


def test_the_load_test_asks_where_the_service_answers() -> None:
    found = load_test(K8S / "overlays" / "dev-cpu")
    service, job = of_kind(found, "RayService"), found[-1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    door = service["spec"]["serveService"]
    ports = {port["name"]: port["port"] for port in door["spec"]["ports"]}
    assert told["LOCUST_HOST"] == f"http://{door['metadata']['name']}:{ports['serve']}"
    assert told["CHROMA_LOAD_GRPC"] == f"{door['metadata']['name']}:{ports['grpc']}"
    master = of_kind(found, "Service", "chroma-load-test")["spec"]
    assert {port["port"] for port in master["ports"]} == {port["containerPort"] for port in container["ports"]}
    assert master["selector"]["batch.kubernetes.io/job-completion-index"] == "0"
    assert "--master-host chroma-load-test" in container["command"][-1]


def test_the_job_says_nothing_the_load_test_does_not_understand() -> None:
    """Locust fails over an unknown option, and overlooks an unknown variable."""
    asked = subprocess.run([sys.executable, "-m", "loadtest", "--help"], capture_output=True, text=True, check=True)
    job = load_test(K8S / "overlays" / "dev-cpu")[-1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    options = set(re.findall(r"--[a-z][a-z-]+", container["command"][-1]))
    variables = {re.sub("^CHROMA_LOAD_", "", each["name"]) for each in container["env"] if "CHROMA" in each["name"]}
    options |= {f"--{name.lower().replace('_', '-')}" for name in variables}
    assert {option for option in options if option not in asked.stdout} == set()


def test_the_overlays_are_those_that_were_asked_for() -> None:
    wanted = "aws-p5en azure-nd-h200-v5 dev-cpu gke-a3-ultra h200-single h200-split incremental-upgrade"
    assert " ".join(OVERLAYS) == wanted
