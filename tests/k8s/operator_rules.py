"""What KubeRay's operator refuses although its CRD lets it pass, restated from reading v1.7."""

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
DURATION = re.compile(r"\d+|(\d+(\.\d+)?(h|m|s|ms))+")
MAX_NAME = 47
UPGRADES = (None, "None", "NewCluster", "NewClusterWithIncrementalUpgrade")
RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}
REDIS_VARIABLES = {"REDIS_PASSWORD", "REDIS_USERNAME", "RAY_REDIS_ADDRESS"}
LEAST_RAY_FOR_TOKENS = (2, 52)


def complaints(service: Json) -> list[str]:
    return [*_metadata(service["metadata"]), *_upgrade(service["spec"]), *_cluster(service["spec"]["rayClusterConfig"])]


def groups(cluster: Json) -> list[tuple[str, Json]]:
    """Head and worker groups, by name."""
    workers = [(group["groupName"], group) for group in cluster.get("workerGroupSpecs", ())]
    return [("head", cluster["headGroupSpec"]), *workers]


def _metadata(metadata: Json) -> Iterator[str]:
    name = metadata["name"]
    if len(name) > MAX_NAME or not DNS_1035.fullmatch(name):
        yield f"metadata.name: {name} is no DNS-1035 label of at most {MAX_NAME} characters"
    timeout = (metadata.get("annotations") or {}).get("ray.io/initializing-timeout", "1m")
    if not DURATION.fullmatch(timeout) or not re.search("[1-9]", timeout):
        yield f"ray.io/initializing-timeout: {timeout} is no duration"


def _upgrade(spec: Json) -> Iterator[str]:
    strategy = spec.get("upgradeStrategy") or {}
    if strategy.get("type") not in UPGRADES:
        yield f"upgradeStrategy.type: {strategy['type']}"
    if spec["rayClusterConfig"].get("upgradeStrategy"):
        yield "rayClusterConfig.upgradeStrategy: belongs to a RayCluster of its own"
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return
    options = strategy.get("clusterUpgradeOptions") or {}
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "upgradeStrategy: an incremental one needs enableInTreeAutoscaling"
    if not options.get("gatewayClassName"):
        yield "clusterUpgradeOptions.gatewayClassName: missing"
    if options.get("intervalSeconds", 0) <= 0:
        yield "clusterUpgradeOptions.intervalSeconds: not above 0"
    if not 0 <= options.get("stepSizePercent", -1) <= options.get("maxSurgePercent", 100) <= 100:
        yield "clusterUpgradeOptions: stepSizePercent and maxSurgePercent are not in order within 0..100"


def _cluster(cluster: Json) -> Iterator[str]:
    head = cluster["headGroupSpec"]
    names = {variable["name"] for variable in head["template"]["spec"]["containers"][0].get("env", ())}
    options = cluster.get("autoscalerOptions") or {}
    if cluster.get("gcsFaultToleranceOptions"):
        for name in sorted(names & REDIS_VARIABLES):
            yield f"head: {name} belongs into gcsFaultToleranceOptions"
        if (head.get("rayStartParams") or {}).get("redis-password"):
            yield "head: redis-password belongs into gcsFaultToleranceOptions"
    elif "RAY_REDIS_ADDRESS" in names:
        yield "head: RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
    if "RAY_enable_autoscaler_v2" in names and (options.get("version") or not cluster.get("enableInTreeAutoscaling")):
        yield "head: RAY_enable_autoscaler_v2 beside, or without, autoscalerOptions.version"
    if (head.get("headService") or {}).get("metadata", {}).get("name"):
        yield "headService.metadata.name: the operator names it"
    auth = cluster.get("authOptions") or {}
    if auth.get("mode") == "token":
        told = re.match(r"(\d+)\.(\d+)", cluster.get("rayVersion") or "")
        if told is None or tuple(map(int, told.groups())) < LEAST_RAY_FOR_TOKENS:
            yield f"authOptions: tokens need rayVersion 2.52 or later, not {cluster.get('rayVersion')}"
    if auth.get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth: not for a RayService"
    seen: set[str] = set()
    for name, group in groups(cluster):
        if name in seen:
            yield f"{name}: a second group of that name"
        seen.add(name)
        yield from _group(name, group, cluster, options)


def _group(name: str, group: Json, cluster: Json, options: Json) -> Iterator[str]:
    parameters, pod = group.get("rayStartParams") or {}, group["template"]["spec"]
    if group.get("resources") and RESOURCES & set(parameters):
        yield f"{name}: resources in two places"
    if "labels" in parameters:
        yield f"{name}: rayStartParams.labels; there is a field labels"
    for key, value in (group.get("labels") or {}).items():
        if len(value) > 63 or not LABEL_VALUE.fullmatch(value):
            yield f"{name}: label {key} has the value {value!r}"
    if cluster.get("enableInTreeAutoscaling"):
        if group.get("suspend"):
            yield f"{name}: suspended beside an autoscaler"
        if options.get("version") == "v2" and pod.get("restartPolicy", "Never") != "Never":
            yield f"{name}: restartPolicy must be Never with autoscaler v2"
    if name == "head":
        if parameters.get("num-cpus") != "0" and (group.get("resources") or {}).get("CPU") != "0":
            yield 'head: num-cpus is not "0", so replicas would be placed there'
        return
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
    if not least <= group.get("replicas", least) <= most:
        yield f"{name}: replicas are not within minReplicas and maxReplicas"
    if any("readinessProbe" in container for container in pod["containers"]):
        yield f"{name}: a readinessProbe replaces the operator's, which asks the ingress"
