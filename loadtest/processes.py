"""What the processes of a server on this machine use, read from /proc."""

import contextlib
import os
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> dict[int, str]:
    """A process and all its descendants: id to title, shortened to what tells stages apart."""
    parents: dict[int, int] = {}
    for process in _processes():
        fields = _stat(process)
        if fields:
            parents[process] = int(fields[1])
    found, fresh = {pid}, {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return {member: _title(member) for member in found}


def cpu_s(pid: int) -> dict[str, float]:
    """CPU seconds used so far by a process and its descendants, by title; equal titles are added up."""
    used: dict[str, float] = {}
    for member, title in family(pid).items():
        fields = _stat(member)
        if fields:
            used[title] = used.get(title, 0.0) + (int(fields[11]) + int(fields[12])) * TICK_S
    return used


def marked(variable: str) -> set[int]:
    """The processes that began with NAME=VALUE in their environment, whoever their parents are by now."""
    found = set()
    for process in _processes():
        with contextlib.suppress(OSError):  # gone, or another user's
            if variable.encode() in (Path("/proc") / str(process) / "environ").read_bytes().split(b"\0"):
                found.add(process)
    return found


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold spaces itself; empty for a process that is gone."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _title(pid: int) -> str:
    try:
        words = (
            (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except OSError:
        return "gone"
    first = words.split(" ")[0]
    if first.startswith("ray::"):  # ray::ServeReplica:chroma:Codec.speak
        return first.rpartition(":")[2].partition(".")[0]
    return "vLLM engine" if words.startswith("VLLM::") else "Ray and the rest"
