"""How late this load generator itself is: a thread that wants to wake up every BEAT_S, and writes a pulse a second."""

import threading
import time
from collections.abc import Callable

from loadtest.load.records import Pulse

BEAT_S = 0.01
LATE_S = 0.05  # a beat later than this would show in what is measured
LATE_SHARE = 0.01  # with more late beats than this a run says nothing


class Heartbeat:
    def __init__(self, counts: Callable[[], tuple[int, int]], write: Callable[[Pulse], None]) -> None:
        """counts: (sessions, speaking) right now."""
        self._counts, self._write = counts, write
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            beats, late_beats, worst_s, ends_at = 0, 0, 0.0, time.monotonic() + 1.0
            while (now := time.monotonic()) < ends_at:
                time.sleep(BEAT_S)
                late_s = time.monotonic() - now - BEAT_S
                # A sleep that lasted ten beats has missed nine of them.
                missed = max(1, round((late_s + BEAT_S) / BEAT_S))
                beats += missed
                late_beats += missed if late_s > LATE_S else 0
                worst_s = max(worst_s, late_s)
            self._write(Pulse(time.time(), *self._counts(), beats, late_beats, worst_s))
