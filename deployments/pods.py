"""What an operator chooses about Kubernetes: the pods that the graph runs in. Read by `chroma render k8s` alone."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from chroma_models.config import Config

Label = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$")]  # of DNS, and short


class PodGroup(Config):
    """Worker pods of one shape. Each stage names, by `scale.STAGE.group`, the group that hosts it."""

    min_pods: PositiveInt = 1
    max_pods: PositiveInt = 1  # what Ray's autoscaler may grow to; a pod that hosts nothing for 15 minutes goes
    gpus: NonNegativeInt = 0  # of a pod
    gpu_memory_gib: PositiveInt = 141  # of each; an H200 has as much
    cpus: PositiveInt = 16
    memory_gib: PositiveInt = 160
    shm_gib: PositiveInt = 16  # of that memory, for /dev/shm
    disk_gib: PositiveInt = 60  # for logs and compiled kernels
    mps: bool = False  # NVIDIA's MPS daemon in the pod: kernels of several stages run side by side on one GPU

    @model_validator(mode="after")
    def _in_order(self) -> "PodGroup":
        if self.min_pods > self.max_pods:
            raise ValueError(f"min_pods {self.min_pods} is above max_pods {self.max_pods}")
        if self.shm_gib >= self.memory_gib:
            raise ValueError(f"shm_gib {self.shm_gib} is no part of memory_gib {self.memory_gib}")
        return self


class Kubernetes(Config):
    name: Label = "chroma"  # of the RayService
    image: str = "registry.example.com/chroma-serve"  # without a tag or digest it gets the versions of this code
    random_weights: Literal["tiny", "mid", "full"] | None = None  # made at models.checkpoint instead of fetched
    tls_between_nodes: bool = False  # certificates under the authority of the Secret chroma-ray-ca
    head_cpus: PositiveInt = 2  # of the pod that schedules and hosts nothing
    head_memory_gib: PositiveInt = 8
    groups: dict[Label, PodGroup] = Field(default_factory=dict)
