"""Whether the RayService and what stands beside it can work together: pods, Serve config, Jobs, budgets, names."""

from collections.abc import Iterator
from typing import Any

import yaml

from deployments.ingress.config import IngressSizes
from deployments.render.ray_service import PRE_STOP_S
from tests.k8s.kustomize import of_kind
from tests.k8s.operator_rules import groups
from tests.k8s.pod_rules import templates
from tests.k8s.quantities import amount

Json = dict[str, Any]

MADE_ELSEWHERE = {  # k8s/README
    "chroma-secrets",
    "chroma-database",
    "chroma-redis",
    "chroma-hf-token",
    "chroma-ray-ca",
    "chroma-load-keys",
}


def complaints(manifests: list[Json]) -> list[str]:
    service = of_kind(manifests, "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    return [
        *_stages(application["deployments"], service["spec"]["rayClusterConfig"]),
        *_doors(application, service["spec"]),
        *_drain(application["deployments"], service["spec"]["rayClusterConfig"]),
        *_images(manifests, service["spec"]["rayClusterConfig"]),
        *_names(manifests),
        *_budget(manifests, service["spec"]["rayClusterConfig"]),
    ]


def _stages(deployments: list[Json], cluster: Json) -> Iterator[str]:
    workers = groups(cluster)[1:]
    for stage in deployments:
        options = stage.get("ray_actor_options") or {}
        wanted = (options.get("label_selector") or {}).items()
        hosts = [group for _, group in workers if wanted <= (group.get("labels") or {}).items()]
        if not hosts:
            yield f"{stage['name']}: no group has its label_selector"
        elif not any(_room(group, options) for group in hosts):
            yield f"{stage['name']}: no pod of its groups has the CPUs and GPUs of one replica"
        if not options.get("num_cpus") and not options.get("num_gpus"):
            yield f"{stage['name']}: takes neither CPU nor GPU, so it may be placed on the head"
    for name, group in workers:
        here = [
            stage["ray_actor_options"]
            for stage in deployments
            if (stage["ray_actor_options"].get("label_selector") or {}).items() <= (group.get("labels") or {}).items()
        ]
        gpus = sum(options.get("num_gpus", 0) for options in here)
        if len(workers) == 1 and gpus > _limit(group, "nvidia.com/gpu") + 1e-6:
            yield f"{name}: one replica of each stage takes {gpus:g} GPUs of a pod, more than it has"


def _room(group: Json, options: Json) -> bool:
    enough_gpus = options.get("num_gpus", 0) <= _limit(group, "nvidia.com/gpu")
    return enough_gpus and options.get("num_cpus", 0) <= _limit(group, "cpu")


def _limit(group: Json, name: str) -> float:
    return amount(group["template"]["spec"]["containers"][0]["resources"]["limits"].get(name, 0))


def _doors(application: Json, spec: Json) -> Iterator[str]:
    """The ingress' ports are those of the pods and of the Service; the operator's probe finds one by name."""
    ingress = IngressSizes.model_validate((application.get("args") or {}).get("ingress") or {})
    ports = {"serve": ingress.http_port, "grpc": ingress.grpc_port}
    for name, group in groups(spec["rayClusterConfig"])[1:]:
        told = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        if any(told.get(port) != number for port, number in ports.items()):
            yield f"{name}: ports serve and grpc are not those of the ingress"
    outside = {port["name"]: port["targetPort"] for port in spec["serveService"]["spec"]["ports"]}
    if outside != ports:
        yield f"serveService: leads to {outside}, the ingress listens on {ports}"
    if not spec.get("excludeHeadPodFromServeSvc"):
        yield "excludeHeadPodFromServeSvc: the head has no ingress"
    (door,) = [stage for stage in application["deployments"] if stage["name"] == "Ingress"]
    if door.get("max_replicas_per_node") != 1 and door.get("num_replicas", 2) > 1:
        yield "Ingress: max_replicas_per_node is not 1, so one pod may get every replica"


def _drain(deployments: list[Json], cluster: Json) -> Iterator[str]:
    longest_s = max(stage["graceful_shutdown_timeout_s"] for stage in deployments)
    for name, group in groups(cluster)[1:]:
        pod = group["template"]["spec"]
        told = {variable["name"]: variable.get("value") for variable in pod["containers"][0].get("env", ())}
        drain_s = float(told.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S") or 30)
        if drain_s < longest_s:
            yield f"{name}: Ray drains {drain_s:g} s, a stage's graceful_shutdown_timeout_s is {longest_s:g}"
        if pod.get("terminationGracePeriodSeconds", 30) <= PRE_STOP_S + drain_s:
            yield f"{name}: terminationGracePeriodSeconds is not above preStop and drain"


def _images(manifests: list[Json], cluster: Json) -> Iterator[str]:
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    for where, template in templates(manifests):
        if where.startswith("StatefulSet"):
            continue
        for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            if container["image"] != head:
                yield f"{where}: the image of {container['name']} is not the head's"
    if "@" not in head and cluster.get("rayVersion", "?") not in head:
        yield f"rayVersion {cluster.get('rayVersion')} is not what the image {head} says"


def _names(manifests: list[Json]) -> Iterator[str]:
    known = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    if secrets := [name for kind, name in known if kind == "Secret"]:
        yield f"Secret {secrets[0]} stands in the manifests"
    cluster_wide = ("Namespace", "PriorityClass")
    if len({each["metadata"].get("namespace") for each in manifests if each["kind"] not in cluster_wide}) != 1:
        yield "more than one namespace"
    for where, template in templates(manifests):
        pod = template["spec"]
        wanted = [("PriorityClass", pod.get("priorityClassName")), ("ServiceAccount", pod.get("serviceAccountName"))]
        for volume in pod.get("volumes", ()):
            wanted.append(("PersistentVolumeClaim", (volume.get("persistentVolumeClaim") or {}).get("claimName")))
        for kind, name in wanted:
            if name is not None and (kind, name) not in known:
                yield f"{where}: there is no {kind} {name}"
        if pod.get("serviceAccountName") and pod.get("automountServiceAccountToken") is not False:
            yield f"{where}: mounts a token that it needs for nothing"
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            for variable in container.get("env", ()):
                key = (variable.get("valueFrom") or {}).get("secretKeyRef")
                if key and key["name"] not in MADE_ELSEWHERE:
                    yield f"{where}: nobody makes the Secret {key['name']}"
    for each in manifests:
        if each["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            yield f"{each['kind']} {each['metadata']['name']}: these pods need no rights"


def _budget(manifests: list[Json], cluster: Json) -> Iterator[str]:
    budget = of_kind(manifests, "PodDisruptionBudget")["spec"]
    workers = groups(cluster)[1:]
    pods = sum(group["minReplicas"] for _, group in workers)
    least = budget.get("minAvailable")
    if not isinstance(least, int):
        yield "PodDisruptionBudget: for pods of the operator only an integer minAvailable counts"
    elif least >= pods:
        yield f"PodDisruptionBudget: with {least} of {pods} pods needed no node can be emptied"
    wanted = budget["selector"]["matchLabels"].items()
    if not all(wanted <= group["template"]["metadata"]["labels"].items() for _, group in workers):
        yield "PodDisruptionBudget: its selector finds no worker"
