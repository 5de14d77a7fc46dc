"""Manifests broken on purpose, one thing each: every one is caught, and for what was broken."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.k8s import crds, validate
from tests.k8s.kustomize import K8S, built, of_kind

Json = dict[str, Any]


class Manifests:
    """What h200-split builds, by the names that a mistake would be made under."""

    def __init__(self) -> None:
        self.all = built(K8S / "overlays" / "h200-split")
        self.service = of_kind(self.all, "RayService")
        self.spec = self.service["spec"]
        self.cluster = self.spec["rayClusterConfig"]
        self.head = self.cluster["headGroupSpec"]
        self.group = self.cluster["workerGroupSpecs"][0]
        self.pod = self.group["template"]["spec"]
        self.worker = self.pod["containers"][0]
        self.serve = yaml.safe_load(self.spec["serveConfigV2"])
        self.application = self.serve["applications"][0]
        self.stages = {stage["name"]: stage for stage in self.application["deployments"]}
        self.budget = of_kind(self.all, "PodDisruptionBudget")["spec"]
        self.claim = of_kind(self.all, "PersistentVolumeClaim")
        self.policy = of_kind(self.all, "NetworkPolicy", "chroma-clients")["spec"]
        self.migrate = next(each for each in self.all if each["metadata"]["name"].startswith("chroma-migrate"))

    def told(self) -> list[Json]:
        if isinstance(self.serve, dict):
            self.spec["serveConfigV2"] = yaml.safe_dump(self.serve)
        return self.all


def put(*path: Any, to: Any) -> Callable[[Manifests], None]:
    """Sets what the path leads to, from an attribute of Manifests on."""

    def change(manifests: Manifests) -> None:
        node = getattr(manifests, path[0])
        for key in path[1:-1]:
            node = node[key]
        node[path[-1]] = to

    return change


def take(*path: Any) -> Callable[[Manifests], None]:
    def change(manifests: Manifests) -> None:
        node = getattr(manifests, path[0])
        for key in path[1:-1]:
            node = node[key]
        del node[path[-1]]

    return change


def add(*path: Any, more: Any) -> Callable[[Manifests], None]:
    def change(manifests: Manifests) -> None:
        node = getattr(manifests, path[0])
        for key in path[1:]:
            node = node[key]
        node.append(more)

    return change


INCREMENTAL = {"type": "NewClusterWithIncrementalUpgrade", "clusterUpgradeOptions": {"gatewayClassName": "istio"}}
TOKEN = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf", "namespace": "chroma"}}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "all", "namespace": "chroma"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
}

# name -> (the mistake, words of the complaint)
BROKEN: dict[str, tuple[Callable[[Manifests], None], str]] = {
    # the CRD says so
    "unknown field of the service": (put("spec", "serveConfig", to=""), "serveConfig"),
    "unknown field of the cluster": (put("cluster", "rayVersions", to="2"), "rayVersions"),
    "unknown field of a group": (put("group", "maxReplica", to=3), "maxReplica"),
    "replicas as text": (put("group", "replicas", to="two"), "'two'"),
    "no group name": (take("group", "groupName"), "groupName"),
    "no head": (take("cluster", "headGroupSpec"), "headGroupSpec"),
    "a container without a name": (take("worker", "name"), "name"),
    "unknown autoscaler": (put("cluster", "autoscalerOptions", "version", to="v3"), "v3"),
    "unknown upscaling": (put("cluster", "autoscalerOptions", "upscalingMode", to="Fast"), "Fast"),
    "unknown manager": (put("spec", "managedBy", to="somebody"), "managedBy"),
    "a port twice": (add("worker", "ports", more={"name": "again", "containerPort": 8000}), "a second 8000"),
    "unknown auth mode": (put("cluster", "authOptions", "mode", to="password"), "password"),
    # Kubernetes says so
    "a misspelt policy": (put("policy", "podSelectors", to={}), "podSelectors"),
    "an access mode of nobody": (put("claim", "spec", "accessModes", to="ReadWriteMany"), "ReadWriteMany"),
    "an unknown field of a Job": (put("migrate", "spec", "retries", to=3), "retries"),
    "a version that is none": (put("claim", "apiVersion", to="v9"), "v9"),
    # Ray's schema passes over it, or says so only in the cluster
    "misspelt max_ongoing_requests": (put("stages", "Codec", "max_ongoing_request", to=3), "max_ongoing_request"),
    "misspelt num_gpus": (put("stages", "Codec", "ray_actor_options", "num_gpu", to=1), "num_gpu"),
    "misspelt autoscaling": (put("stages", "Codec", "autoscaling_config", "min_replica", to=1), "min_replica"),
    "least above most": (put("stages", "Codec", "autoscaling_config", "min_replicas", to=99), "above max_replicas"),
    "two words on scale": (put("stages", "Codec", "num_replicas", to=2), "num_replicas"),
    "a negative GPU": (put("stages", "Codec", "ray_actor_options", "num_gpus", to=-1), "greater than or equal to 0"),
    "an unknown limit": (put("stages", "Codec", "user_config", "limits", "max_turn", to=1), "max_turn"),
    "an unknown setting": (put("application", "args", "backbone", "slot", to=8), "args.backbone.slot"),
    "a setting out of range": (put("application", "args", "backbone", "slots", to=0), "greater than 0"),
    "another import path": (put("application", "import_path", to="chroma:app"), "import_path"),
    "through Serve's proxy": (put("serve", "proxy_location", to="EveryNode"), "proxy_location"),
    "a key in the config": (put("application", "args", "ingress", "key_secret", to="abc"), "a secret in the open"),
    # the operator says so
    "a name too long": (put("service", "metadata", "name", to="c" * 48), "DNS-1035"),
    "a name that begins with a digit": (put("service", "metadata", "name", to="1chroma"), "DNS-1035"),
    "no duration": (
        put("service", "metadata", "annotations", "ray.io/initializing-timeout", to="soon"),
        "no duration",
    ),
    "an unknown upgrade": (put("spec", "upgradeStrategy", "type", to="BlueGreen"), "upgradeStrategy"),
    "steps without a size": (put("spec", "upgradeStrategy", to=INCREMENTAL), "clusterUpgradeOptions"),
    "restarted pods": (put("pod", "restartPolicy", to="Always"), "restartPolicy"),
    "resources twice": (
        lambda m: m.group.update(resources={"CPU": "4"}, rayStartParams={"num-cpus": "4"}),
        "resources in two places",
    ),
    "labels as a parameter": (put("group", "rayStartParams", "labels", to="a=b"), "rayStartParams.labels"),
    "a label that is none": (put("group", "labels", "zone", to="a b"), "label zone"),
    "work on the head": (put("head", "rayStartParams", "num-cpus", to="4"), "num-cpus"),
    "replicas out of range": (put("group", "replicas", to=99), "minReplicas and maxReplicas"),
    "a group twice": (lambda m: m.cluster["workerGroupSpecs"].append(m.group), "a second group"),
    "a probe of one's own": (
        put("worker", "readinessProbe", to={"tcpSocket": {"port": 8000}}),
        "readinessProbe replaces",
    ),
    "tokens without a version": (take("cluster", "rayVersion"), "rayVersion"),
    "Redis by hand": (
        add("head", "template", "spec", "containers", 0, "env", more={"name": "RAY_REDIS_ADDRESS", "value": "x:1"}),
        "RAY_REDIS_ADDRESS",
    ),
    # a kubelet, or somebody who cares, says so
    "root": (put("pod", "securityContext", "runAsNonRoot", to=False), "runs as root"),
    "privileges": (put("worker", "securityContext", "allowPrivilegeEscalation", to=True), "may gain privileges"),
    "capabilities": (take("worker", "securityContext", "capabilities"), "keeps capabilities"),
    "the host's network": (put("pod", "hostNetwork", to=True), "hostNetwork"),
    "an image of any day": (put("worker", "image", to="chroma-serve:latest"), "not pinned"),
    "no limit of memory": (take("worker", "resources", "limits", "memory"), "no limit of memory"),
    "more than the limit": (put("worker", "resources", "requests", "cpu", to="99"), "more cpu than its limit"),
    "half of the GPUs requested": (
        put("worker", "resources", "limits", "nvidia.com/gpu", to="2"),
        "requests must equal limits",
    ),
    "shared memory on a disk": (
        lambda m: next(v for v in m.pod["volumes"] if v["name"] == "shm").update(emptyDir={}),
        "/dev/shm",
    ),
    "a volume of nobody": (add("worker", "volumeMounts", more={"name": "gone", "mountPath": "/x"}), "no volume"),
    "a password in the open": (
        add("worker", "env", more={"name": "DATABASE_PASSWORD", "value": "x"}),
        "a secret in the open",
    ),
    # the graph says so
    "a stage that may land on the head": (
        put("stages", "Codec", "ray_actor_options", to={"label_selector": {"chroma.serve/group": "speaking"}}),
        "may be placed on the head",
    ),
    "a stage without a group": (
        put("stages", "Codec", "ray_actor_options", "label_selector", "chroma.serve/group", to="gone"),
        "no group has its label_selector",
    ),
    "a stage without a GPU": (put("stages", "Reasoner", "ray_actor_options", "num_gpus", to=8), "no pod of its groups"),
    "another port": (put("worker", "ports", 0, "containerPort", to=9000), "not those of the ingress"),
    "a Service that leads elsewhere": (
        put("spec", "serveService", "spec", "ports", 1, "targetPort", to=9001),
        "serveService",
    ),
    "the head behind the Service": (put("spec", "excludeHeadPodFromServeSvc", to=False), "the head has no ingress"),
    "every door on one pod": (take("stages", "Ingress", "max_replicas_per_node"), "max_replicas_per_node"),
    "killed while draining": (put("pod", "terminationGracePeriodSeconds", to=60), "not above preStop and drain"),
    "a drain too short": (put("stages", "Codec", "graceful_shutdown_timeout_s", to=300), "Ray drains"),
    "two versions": (put("migrate", "spec", "template", "spec", "containers", 0, "image", to="a:1"), "not the head's"),
    "another Ray": (put("cluster", "rayVersion", to="2.59.0"), "is not what the image"),
    "a Secret beside the manifests": (add("all", more=TOKEN), "Secret hf stands in the manifests"),
    "a claim of nobody": (put("claim", "metadata", "name", to="weights"), "there is no PersistentVolumeClaim"),
    "a priority of nobody": (put("pod", "priorityClassName", to="high"), "there is no PriorityClass"),
    "a token mounted": (put("pod", "automountServiceAccountToken", to=True), "mounts a token"),
    "rights": (add("all", more=BINDING), "need no rights"),
    "a share as budget": (put("budget", "minAvailable", to="50%"), "only an integer"),
    "a budget that holds every node": (put("budget", "minAvailable", to=4), "no node can be emptied"),
    "a budget for nobody": (
        put("budget", "selector", "matchLabels", "app.kubernetes.io/component", to="gpu"),
        "finds no worker",
    ),
    "two namespaces": (put("claim", "metadata", "namespace", to="default"), "more than one namespace"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_caught(name: str) -> None:
    crds.needed()
    change, words = BROKEN[name]
    manifests = Manifests()
    change(manifests)
    found = validate.complaints(manifests.told())
    assert any(words in complaint for complaint in found), found


def test_a_config_that_is_no_yaml_is_caught() -> None:
    crds.needed()
    manifests = Manifests()
    manifests.spec["serveConfigV2"] = "applications: ["
    assert any("serveConfigV2" in complaint for complaint in validate.complaints(manifests.all))


def test_there_are_many_of_them() -> None:
    assert len(BROKEN) >= 30
