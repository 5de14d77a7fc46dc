"""Whether this machine has the GPUs and cores that the settings ask for: Ray would wait for them without a word."""

import os
from math import prod

import torch

from chroma_models.checkpoint.architecture import Architecture, StackShape
from chroma_models.checkpoint.layout import tensor_shapes
from chroma_models.errors import InvalidRequest
from chroma_models.loading import device_of, dtype_of
from deployments.settings import Models, Settings, StageScale

STAGES = {"reasoner": "thinker.", "backbone": "backbone.", "decoder": "decoder.", "codec": "codec_model."}
INSTEAD = "Set models.torch.device to cpu, or start on another machine."


def check_devices(settings: Settings, architecture: Architecture) -> None:
    """Raises InvalidRequest, which says what is too little and what to change."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    _check_named(settings.models.torch.device, gpus)
    _check_scale(settings, gpus)
    if device_of(settings.models.torch).type == "cuda":
        memory = [torch.cuda.get_device_properties(i).total_memory for i in range(gpus)]
        _check_memory(settings, least_bytes(settings.models, architecture), memory)


def least_bytes(models: Models, architecture: Architecture) -> dict[str, int]:
    """What one replica of each stage puts on its device before it has done anything: weights and KV caches."""
    size = dtype_of(models.torch).itemsize
    shapes = tensor_shapes(architecture)
    least = {
        stage: sum(prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
        * (4 if stage == "codec" else size)  # Mimi stays in float32
        for stage, prefix in STAGES.items()
    }
    slots = models.backbone.slots + models.backbone.reserved_slots
    positions = slots * architecture.backbone.positions
    least["backbone"] += _kv_bytes(architecture.backbone, positions, size)
    if models.reasoner.engine == "vllm":
        least["reasoner"] += models.reasoner.kv_cache_bytes
    else:
        positions = models.reasoner.slots * models.reasoner.max_model_len
        least["reasoner"] += _kv_bytes(architecture.reasoner, positions, size)
    return least


def _kv_bytes(stack: StackShape, positions: int, size: int) -> int:
    return 2 * stack.layers * stack.kv_heads * stack.head_dim * positions * size


def _check_named(device: str, gpus: int) -> None:
    if device == "auto":
        return
    try:
        named = torch.device(device)
    except RuntimeError:
        raise InvalidRequest(f"models.torch.device is {device[:32]!r}; write auto, cpu, cuda or cuda:1.") from None
    if named.type == "cuda" and (named.index or 0) >= gpus:
        raise InvalidRequest(f"models.torch.device is {device}, and torch sees {_count(gpus, 'GPU')} here. {INSTEAD}")
    if named.type not in ("cpu", "cuda"):
        raise InvalidRequest(f"models.torch.device is {device}; only cpu and cuda are served.")


def _check_scale(settings: Settings, gpus: int) -> None:
    """num_gpus and num_cpus of all replicas, against what is here."""
    scale, absent = settings.scale, "decoder" if settings.models.placement == "fused" else None
    for resource, had, kind in (("num_gpus", gpus, "GPU"), ("num_cpus", os.cpu_count() or 1, "CPU core")):
        asked = {
            name: getattr(stage, resource) * _replicas(stage)
            for name in type(scale).model_fields
            if getattr(stage := getattr(scale, name), resource) and name != absent
        }
        total = round(sum(asked.values()), 6)
        if total > had:
            named = ", ".join(f"scale.{name} {share:g}" for name, share in asked.items())
            raise InvalidRequest(
                f"The settings ask for {_count(total, kind)} ({named}), and this machine has {had}: "
                f"lower {resource} or the replicas."
            )


def _check_memory(settings: Settings, least: dict[str, int], memory: list[int]) -> None:
    """memory: bytes of each GPU."""
    replicas = {name: _replicas(getattr(settings.scale, name)) for name in least}
    total, largest = sum(least[name] * replicas[name] for name in least), max(least.values())
    if total <= sum(memory) and largest <= max(memory):
        return
    parts = ", ".join(f"{name} {_gb(least[name] * replicas[name])}" for name in least)
    raise InvalidRequest(
        f"Weights and KV caches take at least {_gb(total)} ({parts}), and the {_count(len(memory), 'GPU')} here "
        f"{'has' if len(memory) == 1 else 'have'} {_gb(sum(memory))}: lower models.backbone.slots or "
        f"models.reasoner.kv_cache_bytes, or {INSTEAD[0].lower()}{INSTEAD[1:]}"
    )


def _replicas(stage: StageScale) -> int:
    """At the start."""
    return stage.autoscaling.min_replicas if stage.autoscaling else stage.replicas


def _count(number: float, kind: str) -> str:
    return f"no {kind}" if not number else f"{number:g} {kind}{'' if number == 1 else 's'}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
