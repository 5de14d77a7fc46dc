"""Every manifest that settings decide, as files."""

import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chroma_models.errors import InvalidRequest
from deployments.cli.checks import is_loopback
from deployments.render.patterns import pattern
from deployments.render.placing import check_placing
from deployments.render.ray_service import WEIGHTS, database_environment, dump, image, ray_service, ready_mark
from deployments.settings import Settings

Manifest = dict[str, Any]

WITHOUT_GRPC = "realtime=8,http=2"
HEADER = "# Written by `chroma render k8s`, from settings.yaml beside it: change that, and render again.\n"


def manifests(settings: Settings) -> dict[str, Manifest]:
    """By file name. Raises InvalidRequest, one sentence, where pods could not run the graph."""
    _check(settings)
    check_placing(settings)
    made = {
        "rayservice.yaml": ray_service(settings),
        "fetch-weights.yaml": _fetch(settings),
        "migrate.yaml": _migrate(settings),
        "disruption.yaml": _disruption(settings),
    }
    return made


def on_demand(settings: Settings) -> dict[str, Manifest]:
    """Beside them, and of no kustomization: applied by name when it is wanted."""
    job = pattern("load-test")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["image"] = image(settings)
    ingress = settings.models.ingress
    told = {"LOCUST_HOST": f"http://chroma:{ingress.http_port}"}
    told |= (
        {"CHROMA_LOAD_GRPC": f"chroma:{ingress.grpc_port}"} if ingress.grpc_port else {"CHROMA_LOAD_MIX": WITHOUT_GRPC}
    )
    container["env"] = [{"name": name, "value": value} for name, value in told.items()] + container["env"]
    return {"load-test.yaml": job}


def texts(settings: Settings) -> dict[str, str]:
    made = manifests(settings) | on_demand(settings)
    return {name: HEADER + dump(manifest) for name, manifest in made.items()}


def write(settings: Settings, folder: Path) -> list[Path]:
    """Raises InvalidRequest, also where the folder cannot be written."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts(settings).items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise InvalidRequest(f"{folder} cannot be written: {error.strerror}.") from None
    return written


def _check(settings: Settings) -> None:
    ingress = settings.models.ingress
    if is_loopback(ingress.host):
        raise InvalidRequest(f"models.ingress.host is {ingress.host}, where no Service finds it: write 0.0.0.0.")
    if not ingress.auth:
        raise InvalidRequest("models.ingress.auth is false, which is for the loopback alone: leave it out.")
    if ingress.tls_cert_file is not None:
        raise InvalidRequest("models.ingress.tls_cert_file is for other places: probes of pods ask in plain HTTP.")
    if settings.models.checkpoint.startswith("/") and not settings.models.checkpoint.startswith(f"{WEIGHTS}/"):
        raise InvalidRequest(f"models.checkpoint is a folder outside the volume: write {WEIGHTS}/..., or an id.")
    if settings.kubernetes.random_weights and not settings.models.checkpoint.startswith(f"{WEIGHTS}/"):
        raise InvalidRequest(
            f"kubernetes.random_weights are made in the volume: let models.checkpoint be {WEIGHTS}/..."
        )


def _fetch(settings: Settings) -> Manifest:
    job = pattern("fetch-weights")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["image"] = image(settings)
    checkpoint = shlex.quote(settings.models.checkpoint)
    if size := settings.kubernetes.random_weights:
        have = f"test -d {checkpoint} || chroma make-checkpoint {checkpoint} --size {size}"
    else:
        have = f"chroma fetch {checkpoint}"
    container["command"] = ["sh", "-ec", f"{have}\ntouch {ready_mark(settings)}\n"]
    return job


def _migrate(settings: Settings) -> Manifest:
    job = pattern("migrate")
    job["metadata"]["name"] += "-" + version("chroma-serve").replace(".", "-")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["image"] = image(settings)
    container["env"] = database_environment()
    return job


def _disruption(settings: Settings) -> Manifest:
    """All pods but one stay; a single one may go, or its node could never be emptied."""
    budget = pattern("disruption")
    pods = sum(group.min_pods for group in settings.kubernetes.groups.values())
    budget["spec"] = {"minAvailable": pods - 1, **budget["spec"]}
    return budget
