"""Busy cores of a server's processes over time, looked at from beside it."""

import threading
import time
from pathlib import Path

from loadtest.processes import TICK_S, cpu_s

Sample = tuple[float, dict[str, float]]
OTHERS = "others"  # whatever else runs on this machine


class Usage:
    """CPU seconds of families of processes, read once a second until the end of the `with`."""

    def __init__(self, **families: int) -> None:
        """The first process of each family, by name; an empty name lets the titles of its members stand alone."""
        self._families = dict(families)
        self._samples: list[Sample] = []
        self._stopped = threading.Event()

    def watch(self, name: str, pid: int) -> None:
        self._families[name] = pid

    def __enter__(self) -> "Usage":
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def cores(self, begin: float, end: float) -> dict[str, float]:
        """Busy cores between two moments of the wall clock, by process and for OTHERS; empty where none was seen."""
        inside = [sample for sample in self._samples if begin <= sample[0] <= end]
        if len(inside) < 2:
            return {}
        (first, before), (last, after) = inside[0], inside[-1]
        used = {name: max(0.0, after[name] - before.get(name, 0.0)) / (last - first) for name in after if name != "all"}
        everything = (after["all"] - before["all"]) / (last - first)
        return {**used, OTHERS: max(0.0, everything - sum(used.values()))}

    def _run(self) -> None:
        while not self._stopped.wait(1.0):
            used: dict[str, float] = {"all": machine_cpu_s()}
            for family, pid in list(self._families.items()):
                for title, seconds in cpu_s(pid).items():
                    name = family if family != "server" else title
                    used[name] = used.get(name, 0.0) + seconds
            self._samples.append((time.time(), used))


def machine_cpu_s() -> float:
    """CPU seconds that all processes of this machine have used, interrupts included."""
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, line[:7])
    return (user + nice + system + irq + softirq) * TICK_S
