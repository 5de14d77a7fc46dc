"""Whether the pods of a manifest can hold what the graph asks of them, told before anybody waits for a GPU."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from chroma_models.errors import InvalidRequest
from deployments.pods import PodGroup
from deployments.render.serve_config import stages
from deployments.settings import Settings, StageScale

ROUNDING = 1e-6  # ten shares of 0.1 are one GPU
GIB = 1 << 30


@dataclass
class _Pod:
    """A pod as Ray's scheduler fills it: whole GPUs, each shared by fractions that it holds entirely."""

    cpus: float
    gpus: list[float]
    stages: list[str] = field(default_factory=list)

    def take(self, stage: str, size: StageScale) -> bool:
        most = size.max_replicas_per_node
        if size.num_cpus > self.cpus + ROUNDING or (most is not None and self.stages.count(stage) >= most):
            return False
        if size.num_gpus >= 1:
            free = [i for i, left in enumerate(self.gpus) if left > 1 - ROUNDING][: int(size.num_gpus)]
            if len(free) < size.num_gpus:
                return False
            for i in free:
                self.gpus[i] = 0.0
        elif size.num_gpus:
            fitting = [i for i, left in enumerate(self.gpus) if left + ROUNDING >= size.num_gpus]
            if not fitting:
                return False
            self.gpus[min(fitting, key=self.gpus.__getitem__)] -= size.num_gpus
        self.cpus -= size.num_cpus
        self.stages.append(stage)
        return True


def check_placing(settings: Settings) -> None:
    """Raises InvalidRequest, one sentence, for the first stage that nothing can host, or shares that do not add up."""
    groups = settings.kubernetes.groups
    if not groups:
        raise InvalidRequest(
            "kubernetes.groups names no pods: give at least one group, with gpus, cpus and memory_gib."
        )
    for stage, size in stages(settings).items():
        _check_stage(stage, size, groups)
    _check_memory(settings)
    _check_full(settings, most=False)
    _check_full(settings, most=True)


def replicas(size: StageScale, most: bool) -> int:
    if size.autoscaling is None:
        return size.replicas
    return size.autoscaling.max_replicas if most else size.autoscaling.min_replicas


def _hosts(size: StageScale, groups: dict[str, PodGroup]) -> Iterator[tuple[str, PodGroup]]:
    return ((name, group) for name, group in groups.items() if size.group in (None, name))


def _check_stage(stage: str, size: StageScale, groups: dict[str, PodGroup]) -> None:
    if size.group is not None and size.group not in groups:
        raise InvalidRequest(
            f"scale.{stage}.group is {size.group}, and kubernetes.groups has only {', '.join(groups)}."
        )
    if size.num_gpus > 1 and size.num_gpus % 1:
        raise InvalidRequest(f"scale.{stage}.num_gpus is {size.num_gpus:g}: write a share of one GPU, or whole ones.")
    if not size.num_cpus and not size.num_gpus:
        raise InvalidRequest(
            f"scale.{stage} takes no CPU and no GPU, so Ray may place it on the head, which no Service finds: let "
            f"scale.{stage}.num_cpus be 0.1 or more."
        )
    if size.num_gpus and size.group is None and len(groups) > 1:
        raise InvalidRequest(f"scale.{stage} asks for a GPU and names no group of {', '.join(groups)} to find it in.")
    able = [name for name, group in _hosts(size, groups) if group.gpus >= size.num_gpus and group.cpus >= size.num_cpus]
    if not able:
        where = f"group {size.group}" if size.group else "any group"
        raise InvalidRequest(
            f"No pod of {where} can host {stage}, whose replica takes {size.num_gpus:g} GPUs and "
            f"{size.num_cpus:g} CPUs."
        )


def _check_memory(settings: Settings) -> None:
    """The KV cache of vLLM is bytes and its share of a GPU only places it, so the two must agree."""
    reasoner, groups = settings.scale.reasoner, settings.kubernetes.groups
    if settings.models.reasoner.engine != "vllm" or not reasoner.num_gpus:
        return
    group = next(group for _, group in _hosts(reasoner, groups) if group.gpus)
    share_gib = min(reasoner.num_gpus, 1.0) * group.gpu_memory_gib
    wanted_gib = settings.models.reasoner.kv_cache_bytes / GIB
    if wanted_gib > share_gib:
        raise InvalidRequest(
            f"models.reasoner.kv_cache_bytes is {wanted_gib:.0f} GiB, and the Reasoner's share of a GPU "
            f"({reasoner.num_gpus:g} of {group.gpu_memory_gib} GiB) is {share_gib:.0f}."
        )


def _check_full(settings: Settings, most: bool) -> None:
    """Every replica finds its place: the largest first, stages that may go anywhere last, as nobody waits for them."""
    groups = settings.kubernetes.groups
    pods = {
        name: [_Pod(float(group.cpus), [1.0] * group.gpus) for _ in range(group.max_pods if most else group.min_pods)]
        for name, group in groups.items()
    }
    deployed = stages(settings)
    for stage in sorted(deployed, key=lambda name: (deployed[name].group is None, -deployed[name].num_gpus)):
        size = deployed[stage]
        count = replicas(size, most)
        hosts = [pod for name, _ in _hosts(size, groups) for pod in pods[name]]
        placed = sum(any(pod.take(stage, size) for pod in sorted(hosts, key=_crowd)) for _ in range(count))
        if placed < count:
            bound = "max_pods" if most else "min_pods"
            where = f"group {size.group}" if size.group else "all groups"
            shares = ", ".join(f"{name} {replicas(s, most)} x {s.num_gpus:g}" for name, s in deployed.items())
            raise InvalidRequest(
                f"The {len(hosts)} pods of {where} ({bound}) hold {placed} of {count} replicas of {stage}: "
                f"the shares of a GPU do not add up ({shares}), or CPUs or max_replicas_per_node leave no room."
            )


def _crowd(pod: _Pod) -> int:
    return len(pod.stages)
