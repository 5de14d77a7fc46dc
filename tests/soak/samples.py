"""What processes and the machine hold, a moment at a time."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.processes import family
from tests.deployments.graph import Graph
from tests.soak.verdict import Limit

MIB = 1 << 20
LIMITS = {  # by the second word of a series' name
    "USS MiB": Limit(0.05, 24.0),  # of one process; allocators keep what a burst once took
    "PSS MiB": Limit(0.05, 24.0),
    "descriptors": Limit(0.05, 8.0),
    "threads": Limit(0.05, 4.0),
    "processes": Limit(0.0, 0.5),
    "slots held": Limit(0.25, 2.0),
    "tasks": Limit(0.25, 16.0),
    "shared memory MiB": Limit(0.05, 16.0),
    "first audio s": Limit(0.25, 0.05),
}


@dataclass
class Samples:
    """Series by name; times are seconds since the beginning."""

    began: float = field(default_factory=time.monotonic)
    series: dict[str, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))

    def add(self, name: str, value: float) -> None:
        times, values = self.series[name]
        times.append(round(time.monotonic() - self.began, 2))
        values.append(round(value, 4))

    async def take(self, graph: Graph) -> None:
        for title, told in processes().items():
            for what, value in told.items():
                self.add(f"{title}: {what}", value)
        for stage, state in (await graph.states()).items():
            self.add(f"{stage}: tasks", state["tasks"])
            if "slots_held" in state:
                self.add(f"{stage}: slots held", state["slots_held"])
        held = os.statvfs("/dev/shm")
        self.add("machine: shared memory MiB", (held.f_blocks - held.f_bfree) * held.f_frsize / MIB)


def processes() -> dict[str, dict[str, float]]:
    """Of this process' descendants, by title: those that bear a stage's name apart, Ray's own together."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for process, title in family(os.getpid()).items():
        if process == os.getpid():
            continue
        try:
            memory = _rollup(process)
            counts = {"descriptors": "fd", "threads": "task"}
            held = {name: float(len(os.listdir(f"/proc/{process}/{kind}"))) for name, kind in counts.items()}
        except OSError:
            continue  # gone meanwhile
        for name, value in {**memory, **held, "processes": 1.0}.items():
            found[title][name] += value
    return found


def _rollup(process: int) -> dict[str, float]:
    """Memory that it alone has, and its part of what it shares."""
    kib: dict[str, int] = defaultdict(int)
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        kib[name.rstrip(":")] += int(value)
    return {
        "USS MiB": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024,
        "PSS MiB": kib["Pss"] / 1024,
    }


def limit(name: str) -> Limit:
    return LIMITS[name.partition(": ")[2]]
