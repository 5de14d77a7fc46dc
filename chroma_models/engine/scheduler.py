"""Which rows step now, who waits, and how much is prefilled in between: policy alone.

No tensors, and no clock of its own: time is given. The step loop and the simulator of its tests run this same code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from chroma_models.engine.step_times import StepTimes
from chroma_models.types import FRAMES_PER_S

FRAME_S = 1 / FRAMES_PER_S
BURST_S = 4 * FRAME_S  # held rows wake all at once, this often
EASY_S = 8 * FRAME_S  # a row races to this lead by itself; from there on it grows in company, a burst at a time
CROWDED = 0.5  # where a step of everyone takes more of a frame than this, rows with more than the least lead wait
WAITING_LISTENER_S = 0.5  # who has heard nothing yet is prefilled like one with this much lead
FAST_STEP_S = FRAME_S / 2  # fast work holds the engine no longer than this at a time
PREFILL_SHARE = 0.8  # of the time that steps leave of a frame
LEAD_SHARE = 0.5  # of the thinnest lead that one iteration's prefill may use up
LEAD_KEPT_S = 2 * FRAME_S  # of which this much is not touched
FEWEST_POSITIONS = 16  # of a prefill in any iteration, so that it always ends


class Paced(Protocol):
    """A row as the scheduler sees it. held and lead_limit_s are the scheduler's own marks."""

    held: bool
    lead_limit_s: float  # the lead at which it is held next; 0 for a new row

    @property
    def realtime(self) -> bool: ...
    @property
    def started(self) -> bool: ...  # its first frame is out: somebody listens
    @property
    def ready(self) -> bool: ...  # it could step now
    @property
    def in_flight(self) -> int: ...
    @property
    def prefill_left(self) -> int: ...  # positions
    def lead_s(self, now: float) -> float: ...  # 0 until started


R = TypeVar("R", bound=Paced)


@dataclass(frozen=True)
class Plan(Generic[R]):
    """One iteration: prefill so many positions of one row, then step these rows, those with the least lead first."""

    prefill: R | None = None
    positions: int = 0
    step: list[R] = field(default_factory=list)
    nap_s: float | None = None  # nothing to do: sleep this long, or until somebody calls

    @property
    def idle(self) -> bool:
        return self.prefill is None and not self.step


class Scheduler:
    """Least lead first; nobody far ahead of playback; fast work with what is left over.

    times  the measured costs, which it only reads
    """

    def __init__(self, times: StepTimes) -> None:
        self._times = times
        self._wakes_at = 0.0

    def plan(self, rows: Iterable[R], now: float, max_lead_s: float, chunk: int) -> Plan[R]:
        """What to do at `now`. chunk: the most positions one iteration may prefill."""
        everyone = list(rows)
        realtime = [row for row in everyone if row.realtime]
        self._hold(realtime, now, max_lead_s)
        awake = [row for row in realtime if not row.held and (row.ready or row.in_flight or row.prefill_left)]
        if not awake:
            return self._leftover([row for row in everyone if not row.realtime], realtime, now, chunk)
        ready = sorted((row for row in awake if row.ready), key=lambda row: row.lead_s(now))
        waiting = [row for row in awake if row.prefill_left]
        if not waiting:
            return Plan(step=self._least(ready, now))
        first = min(waiting, key=lambda row: self._prefill_urgency_s(row, now))
        return Plan(first, self._positions(first, realtime, now, chunk), self._least(ready, now))

    def _hold(self, realtime: list[R], now: float, max_lead_s: float) -> None:
        """Rows with enough in hand wait, and wake together: a step of many rows costs little more than one of few.

        A new row would make its whole lead alone, at the price of as many steps as a crowd needs. So it races only to
        an easy lead; then it makes at most two bursts a wake, one of them ahead of playback, up to max_lead_s.
        """
        burst_s = min(BURST_S, max_lead_s / 2)
        if now >= self._wakes_at:
            self._wakes_at = now + burst_s
            for row in realtime:
                if row.held:
                    row.held, row.lead_limit_s = False, row.lead_s(now) + 2 * burst_s
        easy_s = EASY_S if max_lead_s >= 2 * EASY_S else max_lead_s
        for row in realtime:
            row.held = row.held or row.lead_s(now) > min(max_lead_s, max(easy_s, row.lead_limit_s))

    def _least(self, ready: list[R], now: float) -> list[R]:
        """Everyone who is ready; where that takes long, only those within a burst of the least lead."""
        if len(ready) < 2 or self._times.step_s(len(ready)) <= CROWDED * FRAME_S:
            return ready
        limit = ready[0].lead_s(now) + BURST_S
        return [row for row in ready if row.lead_s(now) <= limit]

    def _prefill_urgency_s(self, row: R, now: float) -> float:
        """Seconds in hand. A row that rolls over or was resumed needs what its own prefill will take, twice."""
        if not row.started:
            return WAITING_LISTENER_S
        return row.lead_s(now) - 2 * row.prefill_left * self._times.position_s

    def _positions(self, first: R, realtime: list[R], now: float, chunk: int) -> int:
        """How much of a prefill fits between two steps without anybody noticing."""
        most = min(chunk, first.prefill_left)
        listening = [row for row in realtime if row.started and row is not first]
        position_s = self._times.position_s
        if not listening or not position_s:
            return most
        stepping = sum(1 for row in listening if not row.held and not row.prefill_left)
        least_s = min(row.lead_s(now) for row in listening)
        spare_s = PREFILL_SHARE * (FRAME_S - self._times.step_s(stepping))
        room_s = max(spare_s if least_s > 0 else 0.0, LEAD_SHARE * (least_s - LEAD_KEPT_S))
        return min(most, max(FEWEST_POSITIONS, int(room_s / position_s)))

    def _leftover(self, fast: list[R], realtime: list[R], now: float, chunk: int) -> Plan[R]:
        """Fast work, in small portions where somebody listens; nothing of it runs while a realtime row could."""
        ready = sorted((row for row in fast if row.ready), key=lambda row: row.lead_s(now))
        waiting = next((row for row in fast if row.prefill_left), None)
        most = min(chunk, waiting.prefill_left) if waiting is not None else 0
        if realtime:
            while len(ready) > 1 and self._times.step_s(len(ready)) > FAST_STEP_S:
                del ready[-max(1, len(ready) // 4) :]
            if self._times.position_s:
                most = min(most, max(FEWEST_POSITIONS, int(FAST_STEP_S / self._times.position_s)))
            if waiting is not None and ready:  # one of the two at a time; the prefill ends soon
                ready = []
        held = [row for row in realtime if row.held]
        nap_s = None
        if held:
            nap_s = max(0.001, self._wakes_at - now)
        return Plan(waiting, most, ready, nap_s)
