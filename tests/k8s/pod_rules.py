"""What a pod template must be, for Kubernetes to take it and for people to trust it."""

from collections.abc import Iterator
from typing import Any

from deployments.ingress import secret_settings
from tests.k8s.quantities import amount

Json = dict[str, Any]

HANDLERS = {"exec", "httpGet", "tcpSocket", "grpc"}


def templates(manifests: list[Json]) -> Iterator[tuple[str, Json]]:
    """Every pod template, with where it stands."""
    for manifest in manifests:
        name, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec") or {}
        if manifest["kind"] == "RayService":
            cluster = spec["rayClusterConfig"]
            yield f"{name} head", cluster["headGroupSpec"]["template"]
            for group in cluster.get("workerGroupSpecs", ()):
                yield f"{name} {group['groupName']}", group["template"]
        elif "template" in spec:
            yield name, spec["template"]


def complaints(manifests: list[Json]) -> list[str]:
    return [f"{where}: {what}" for where, template in templates(manifests) for what in _pod(template["spec"])]


def _pod(pod: Json) -> Iterator[str]:
    security = pod.get("securityContext") or {}
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield "runs as root"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "without a seccomp profile"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name}: nothing here needs the host's"
    volumes = [volume["name"] for volume in pod.get("volumes", ())]
    if len(volumes) != len(set(volumes)):
        yield "two volumes of one name"
    for volume in pod.get("volumes", ()):
        if "hostPath" in volume:
            yield f"volume {volume['name']}: a path of the host"
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    if len({container["name"] for container in containers}) != len(containers):
        yield "two containers of one name"
    for container in containers:
        for what in (*_container(container), *_mounts(container, pod)):
            yield f"{container['name']}: {what}"


def _container(container: Json) -> Iterator[str]:
    last = container["image"].rsplit("/", 1)[-1]
    if "@" not in container["image"] and (":" not in last or last.endswith(":latest")):
        yield f"the image {container['image']} is not pinned"
    security = container.get("securityContext") or {}
    if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if "ALL" not in (security.get("capabilities") or {}).get("drop", ()):
        yield "keeps capabilities"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container and len(HANDLERS & set(container[probe])) != 1:
            yield f"{probe}: not exactly one handler"
    for port in container.get("ports", ()):
        if not 0 < port["containerPort"] < 1 << 16:
            yield f"port {port['containerPort']}"
    secret = {secret_settings.variable(name) for name in secret_settings.NAMES} | {"HF_TOKEN"}
    for variable in container.get("env", ()):
        if "value" in variable and (variable["name"] in secret or "PASSWORD" in variable["name"]):
            yield f"{variable['name']}: a secret in the open"
    yield from _amounts(container.get("resources") or {})


def _amounts(resources: Json) -> Iterator[str]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if "memory" not in limits:
        yield "no limit of memory"
    for name, wanted in requests.items():
        if name in limits and amount(wanted) > amount(limits[name]):
            yield f"requests more {name} than its limit"
    for name in limits.keys() | requests.keys():
        if "/" in name and limits.get(name) != requests.get(name, limits.get(name)):
            yield f"{name}: requests must equal limits"


def _mounts(container: Json, pod: Json) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
    templates = {"data"} if not volumes else set()  # of a StatefulSet
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in volumes.keys() | templates:
            yield f"mounts {mount['name']}, which is no volume"
        elif mount["mountPath"] == "/dev/shm":
            memory = volumes[mount["name"]].get("emptyDir") or {}
            if memory.get("medium") != "Memory" or "sizeLimit" not in memory:
                yield "/dev/shm is no memory of a limited size"
