"""What some pods have on top: NVIDIA's MPS daemon, certificates between nodes."""

from typing import Any

from deployments.render.patterns import pattern

OVERWRITE = "ray.io/overwrite-container-cmd"  # the operator leaves our command, and hands us its own in a variable
PIPES = "/tmp/nvidia-mps"
LOGS = "/tmp/nvidia-mps-log"


def add_mps(template: dict[str, Any]) -> None:
    """The daemon is started in the Ray container, which has the pod's GPU and no other, before Ray is."""
    template["metadata"].setdefault("annotations", {})[OVERWRITE] = "true"
    (container,) = template["spec"]["containers"]
    container["command"] = ["/bin/bash", "-c", "--"]
    container["args"] = [
        f"mkdir -p {PIPES} {LOGS} && nvidia-cuda-mps-control -d && ulimit -n 65536 && $KUBERAY_GEN_RAY_START_CMD"
    ]
    container["env"] += [
        {"name": "CUDA_MPS_PIPE_DIRECTORY", "value": PIPES},
        {"name": "CUDA_MPS_LOG_DIRECTORY", "value": LOGS},
    ]


def add_tls(pod: dict[str, Any]) -> None:
    """Ray's own connections and those between replicas; what clients see is models.ingress.tls_cert_file's."""
    tls = pattern("tls")
    (container,) = pod["containers"]
    first = {**tls["initContainer"], "image": container["image"]}
    pod["initContainers"] = [*pod.get("initContainers", ()), first]
    container["env"] += tls["env"]
    container["volumeMounts"] += tls["volumeMounts"]
    pod["volumes"] += tls["volumes"]
