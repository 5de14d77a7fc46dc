"""What pods of an overlay run, as the operator and the kubelet read it from the manifests. Nothing is chosen here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
Secrets = Mapping[tuple[str, str], str]  # by the name of the Secret and the key in it

GIB = 1 << 30
OBJECTS = 0.3  # Ray's share of a pod's memory for its object store; it sees the machine's here, not the pod's


@dataclass(frozen=True)
class Container:
    """Of a pod: what is run, under which environment."""

    command: list[str]
    environment: dict[str, str]
    shm: str


@dataclass(frozen=True)
class Overlay:
    """The rendered files of an overlay."""

    ray_service: Json
    jobs: dict[str, Json]

    @classmethod
    def read(cls, folder: Path) -> "Overlay":
        made = {name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("fetch-weights", "migrate")}
        return cls(yaml.safe_load((folder / "rayservice.yaml").read_text()), made)

    @property
    def serve_config(self) -> Json:
        """What the operator puts to the head, unchanged."""
        config: Json = yaml.safe_load(self.ray_service["spec"]["serveConfigV2"])
        return config

    @property
    def limits(self) -> dict[str, float]:
        """Of the stages, in seconds and the like."""
        told: dict[str, float] = self.serve_config["applications"][0]["deployments"][0]["user_config"]["limits"]
        return told

    @property
    def stages(self) -> dict[str, int]:
        """Replicas by deployment."""
        return {one["name"]: one["num_replicas"] for one in self.serve_config["applications"][0]["deployments"]}

    def job(self, name: str, secrets: Secrets) -> Container:
        (container,) = self.jobs[name]["spec"]["template"]["spec"]["containers"]
        return Container(container["command"], environment(container.get("env", []), secrets), "64m")

    def head(self, secrets: Secrets) -> Container:
        cluster = self.ray_service["spec"]["rayClusterConfig"]
        return self._ray(cluster["headGroupSpec"], ["--head"], secrets)

    def worker(self, head: str, secrets: Secrets) -> Container:
        (group,) = self.ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        return self._ray(group, [f"--address={head}:6379"], secrets)

    def _ray(self, group: Json, words: list[str], secrets: Secrets) -> Container:
        """As the operator writes it: the pod's size, the group's labels and parameters, and --block."""
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        size = container["resources"]["limits"]
        memory = int(size["memory"].removesuffix("Gi")) * GIB
        told = {
            "num-cpus": size["cpu"],
            "memory": str(memory),
            "object-store-memory": str(int(OBJECTS * memory)),
            "dashboard-agent-listen-port": "52365",
            "metrics-export-port": "8080",
            **group["rayStartParams"],
        }
        if labels := group.get("labels"):
            told["labels"] = ",".join(f"{name}={value}" for name, value in labels.items())
        start = ["ray", "start", *words, "--block", *(f"--{name}={value}" for name, value in sorted(told.items()))]
        (shm,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "shm"]
        return Container(
            ["/bin/bash", "-c", "--", f"ulimit -n 65536; {' '.join(start)}"],
            {**environment(container["env"], secrets), "RAY_AUTH_MODE": "token"},
            shm.removesuffix("i"),
        )

    @property
    def pre_stop_s(self) -> float:
        """How long a pod that is to go waits before it gets SIGTERM."""
        (group,) = self.ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        return float(seconds)

    @property
    def grace_s(self) -> float:
        """From then on, and the wait included, until it gets SIGKILL."""
        (group,) = self.ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        return float(group["template"]["spec"]["terminationGracePeriodSeconds"])

    @property
    def port(self) -> int:
        """Of the containers behind the Service."""
        (group,) = self.ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        (number,) = [port["containerPort"] for port in container["ports"] if port["name"] == "serve"]
        return int(number)


def environment(entries: list[Json], secrets: Secrets) -> dict[str, str]:
    """A container's variables. Raises KeyError for a Secret that must be there and is not."""
    told = {}
    for entry in entries:
        if "value" in entry:
            told[entry["name"]] = entry["value"]
            continue
        source = entry["valueFrom"]["secretKeyRef"]
        if (key := (source["name"], source["key"])) in secrets:
            told[entry["name"]] = secrets[key]
        elif not source.get("optional"):
            raise KeyError(f"{entry['name']} wants {json.dumps(source)}")
    return told
