"""The RayService: the pattern's pods, with what the settings say filled in."""

import math
import re
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import yaml

from chroma_models.errors import InvalidRequest
from deployments.ingress import secret_settings
from deployments.pods import PodGroup
from deployments.render.extras import add_mps, add_tls
from deployments.render.patterns import pattern
from deployments.render.serve_config import GROUP_LABEL, serve_config, stages
from deployments.settings import Settings
from deployments.transport import ENVIRONMENT

Manifest = dict[str, Any]

WEIGHTS = "/weights"  # where the volume is mounted
PRE_STOP_S = 10  # the pattern's preStop
SPARE_S = 20  # for Ray itself to stop
MUST_BE_SET = ("database_url", "key_secret", "token_secret", "affinity_key")
DATABASE = {"name": "chroma-database", "key": "url"}
SECRETS = "chroma-secrets"


def ray_service(settings: Settings) -> Manifest:
    """Raises InvalidRequest."""
    kubernetes = settings.kubernetes
    manifest = pattern("rayservice")
    manifest["metadata"]["name"] = kubernetes.name
    spec = manifest["spec"]
    spec["serveConfigV2"] = _text(serve_config(settings))
    spec["serveService"]["metadata"]["name"] = kubernetes.name
    _ports(spec["serveService"]["spec"]["ports"], settings, "port", "targetPort")
    cluster = spec["rayClusterConfig"]
    cluster["rayVersion"] = version("ray")
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["image"] = image(settings)
    head["env"] = environment(settings)
    for amounts in head["resources"].values():
        amounts |= {"cpu": str(kubernetes.head_cpus), "memory": f"{kubernetes.head_memory_gib}Gi"}
    (worker,) = cluster["workerGroupSpecs"]
    cluster["workerGroupSpecs"] = [_group(worker, name, group, settings) for name, group in kubernetes.groups.items()]
    if kubernetes.tls_between_nodes:
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            add_tls(group["template"]["spec"])
    return manifest


def image(settings: Settings) -> str:
    """Pinned: by the operator's tag or digest, or by the versions of this code and its Ray. Raises InvalidRequest."""
    told = settings.kubernetes.image
    tag = told.rsplit("/", 1)[-1].partition(":")[2]
    if "@" in told:
        return told
    if tag == "latest":
        raise InvalidRequest("kubernetes.image ends with :latest, which is another image every day: name a version.")
    return told if tag else f"{told}:{version('chroma-serve')}-ray{version('ray')}"


def environment(settings: Settings) -> list[Manifest]:
    """Of every Ray container, the head's too: the application is built there."""
    told = {name: value for name, value in ENVIRONMENT.items() if name != "RAY_AUTH_MODE"}  # the operator's to say
    told |= {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(drain_s(settings)),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "120",  # workers wait so long for a head that comes back
        "HF_HOME": WEIGHTS,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    plain = [{"name": name, "value": value} for name, value in told.items()]
    return [*plain, *(_secret(name) for name in secret_settings.NAMES)]


def _secret(name: str) -> Manifest:
    source = DATABASE if name == "database_url" else {"name": SECRETS, "key": name}
    key = source if name in MUST_BE_SET else {**source, "optional": True}
    return {"name": secret_settings.variable(name), "valueFrom": {"secretKeyRef": key}}


def ready_mark(settings: Settings) -> str:
    """The file in the volume that says that this checkpoint is there as a whole."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "--", settings.models.checkpoint)
    return f"{WEIGHTS}/.ready-{name.strip('-')}"


def database_environment() -> list[Manifest]:
    return [_secret("database_url")]


def drain_s(settings: Settings) -> int:
    """How long Ray waits for the replicas of a node that goes. Raises InvalidRequest where live streams get less."""
    ingress, given_s = settings.models.ingress, settings.scale.ingress.graceful_shutdown_timeout_s
    needed_s = ingress.drain_linger_s + ingress.drain_wait_s
    if given_s <= needed_s:
        raise InvalidRequest(
            f"scale.ingress.graceful_shutdown_timeout_s is {given_s:g}, and the ingress drains for {needed_s:g} s "
            "(models.ingress.drain_linger_s and drain_wait_s): live streams would be cut."
        )
    return math.ceil(max(size.graceful_shutdown_timeout_s for size in stages(settings).values())) + 5


def _group(pattern_of_all: Manifest, name: str, group: PodGroup, settings: Settings) -> Manifest:
    made = deepcopy(pattern_of_all)
    made |= {
        "groupName": name,
        "replicas": group.min_pods,
        "minReplicas": group.min_pods,
        "maxReplicas": group.max_pods,
        "labels": {GROUP_LABEL: name},
    }
    template = made["template"]
    template["metadata"]["labels"] |= {"chroma.serve/group": name}
    pod = template["spec"]
    pod["terminationGracePeriodSeconds"] = PRE_STOP_S + drain_s(settings) + SPARE_S
    (waiting,) = pod["initContainers"]
    waiting["image"] = image(settings)
    waiting["command"] = ["sh", "-c", f"until test -e {ready_mark(settings)}; do sleep 2; done"]
    (container,) = pod["containers"]
    container["image"] = image(settings)
    container["env"] = environment(settings)
    _ports(container["ports"], settings, "containerPort")
    amounts = {"cpu": str(group.cpus), "memory": f"{group.memory_gib}Gi", "ephemeral-storage": f"{group.disk_gib}Gi"}
    if group.gpus:
        amounts["nvidia.com/gpu"] = str(group.gpus)
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    container["resources"] = {"requests": amounts, "limits": dict(amounts)}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes["shm"]["emptyDir"]["sizeLimit"] = f"{group.shm_gib}Gi"
    if group.mps:
        if not group.gpus:
            raise InvalidRequest(f"kubernetes.groups.{name}.mps shares a GPU, and its pods have none.")
        add_mps(template)
    return made


def _ports(ports: list[Manifest], settings: Settings, *fields: str) -> None:
    """Fill in the ports of the ingress; without gRPC its port goes."""
    ingress = settings.models.ingress
    numbers = {"serve": ingress.http_port, "grpc": ingress.grpc_port}
    ports[:] = [port for port in ports if numbers.get(port["name"], 0) is not None]
    for port in ports:
        if port["name"] in numbers:
            port.update(dict.fromkeys(fields, numbers[port["name"]]))


class _Block(str):
    """Told as a block of lines."""


class Dumper(yaml.SafeDumper):
    """Without anchors, so that what is printed can be read and patched line by line."""

    def ignore_aliases(self, data: object) -> bool:
        return True


Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def dump(manifest: Manifest) -> str:
    text: str = yaml.dump(manifest, Dumper=Dumper, sort_keys=False, width=120)
    return text


def _text(config: Manifest) -> _Block:
    return _Block(dump(config))
