"""How long work takes on a device, and how fast that device could be at best. Needs torch alone."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Roofline:
    """Bytes and operations a second that this device reached in a short test of its own, at one dtype."""

    bytes_per_s: float
    flops_per_s: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> "Roofline":
        """Reads a tensor larger than most caches, and multiplies square matrices; a second on a CPU."""
        big = device.type == "cuda"
        read = torch.ones((1 << 30 if big else 1 << 26) // 4, device=device)
        side = 8192 if big else 1024
        a = torch.randn(side, side, device=device).to(dtype)
        reading_s = best_s(read.sum, device)
        multiplying_s = best_s(lambda: a @ a, device)
        return cls(read.numel() * 4 / reading_s, 2 * side**3 / multiplying_s)

    def least_s(self, weight_bytes: float, flops: float) -> float:
        """Below this no step can be that moves so many bytes and computes so much."""
        return max(weight_bytes / self.bytes_per_s, flops / self.flops_per_s)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_s(work: Callable[[], object], device: torch.device, times: int = 7) -> float:
    """The shortest of some runs, in seconds."""
    best = float("inf")
    for _ in range(times):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def median_ms(work: Callable[[], object], device: torch.device, times: int) -> float:
    """The median of some runs, each waited for, in milliseconds."""
    taken = []
    for _ in range(times):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3


def memory_mb(device: torch.device) -> float:
    """Peak of the device's allocator, or of the process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def write_json(path: Path, command: list[str], machine: dict[str, Any], seed: int, results: Any) -> None:
    """One file per run: what was asked, of what, and what came out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "machine": machine, "seed": seed, "results": results}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
