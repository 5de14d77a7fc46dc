"""What an engine's steps took: totals, and the last of them one by one."""

from array import array

KEPT = 1024  # steps; a sampler that comes every two seconds misses none below 500 a second


class StepLog:
    """Written by the thread that steps, read by anyone without a lock; adding a step allocates nothing.

    A reader that comes while a step is added sees it the next time.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.rows = 0  # of all steps
        self.busy_s = 0.0  # of all steps
        self._seconds = array("d", bytes(8 * KEPT))
        self._rows = array("l", [0]) * KEPT

    def add(self, seconds: float, rows: int) -> None:
        at = self.steps % KEPT
        self._seconds[at] = seconds
        self._rows[at] = rows
        self.rows += rows
        self.busy_s += seconds
        self.steps += 1

    def since(self, seen: int, last: int) -> list[tuple[float, int]]:
        """Seconds and rows of steps seen..last (a reading of steps), oldest first; of more than KEPT the newest."""
        return [(self._seconds[i % KEPT], self._rows[i % KEPT]) for i in range(max(seen, last - KEPT), last)]
