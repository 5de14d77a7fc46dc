"""The scheduler and the admission forecast on a virtual clock: no model, only what steps and prefills would cost."""

import heapq
from dataclasses import dataclass, field

from chroma_models.engine.admission import Admission
from chroma_models.engine.scheduler import FRAME_S, Scheduler
from chroma_models.engine.step_times import StepTimes
from chroma_models.interleave import Windows


@dataclass(frozen=True)
class Machine:
    """What it costs, in seconds."""

    step_s: float  # any step
    row_s: float  # each row of it
    position_s: float  # each prefilled position

    def limit(self, load: float) -> int:
        """Rows whose steps take this share of real time."""
        return int((load * FRAME_S - self.step_s) / self.row_s)


@dataclass(frozen=True)
class Arrival:
    at: float
    frames: int
    prompt: int = 300
    realtime: bool = True


@dataclass(eq=False)
class SimRow:
    """A turn as the scheduler sees it, and what its listener went through."""

    arrival: Arrival
    opened_at: float
    prefill_left: int
    windows: Windows
    held: bool = False
    lead_limit_s: float = 0.0
    in_flight: bool = False
    frame: int = 0
    started_at: float | None = None
    underruns: int = 0
    late_s: float = 0.0

    @property
    def realtime(self) -> bool:
        return self.arrival.realtime

    @property
    def started(self) -> bool:
        return self.started_at is not None

    @property
    def ready(self) -> bool:
        return not self.prefill_left

    def lead_s(self, now: float) -> float:
        return 0.0 if self.started_at is None else self.frame * FRAME_S - (now - self.started_at)

    def spoke(self, now: float) -> None:
        if self.started_at is None:
            self.started_at = now
        elif self.lead_s(now) < -1e-9:
            self.underruns += 1
            self.late_s = max(self.late_s, -self.lead_s(now))
        self.frame += 1
        if self.windows.rolls(self.frame):
            self.prefill_left = 2 * self.windows.kept


@dataclass
class Simulation:
    """Runs arrivals to their ends. known: the engine has measured this machine before."""

    machine: Machine
    max_lead_s: float = 4.0
    max_load: float = 0.85
    patience_s: float = 2.0
    chunk: int = 256
    positions: int = 2048
    known: bool = True
    now: float = 0.0
    rows: list[SimRow] = field(default_factory=list)
    served: list[SimRow] = field(default_factory=list)
    refused: list[tuple[Arrival, float]] = field(default_factory=list)  # with what they were told
    watched: tuple[float, float] = (0.0, 0.0)  # from when until when leads are compared
    spread_s: float = 0.0  # the widest gap between two listeners' leads meanwhile

    def __post_init__(self) -> None:
        self.times = StepTimes()
        self.scheduler = Scheduler(self.times)
        self.admission = Admission(self.times)
        if self.known:
            for rows in range(1, 13):
                self.times.stepped(rows, self.machine.step_s + rows * self.machine.row_s)
                self.times.prefilled(256, 256 * self.machine.position_s)

    def run(self, arrivals: list[Arrival]) -> None:
        coming = [(arrival.at, i, arrival) for i, arrival in enumerate(arrivals)]
        heapq.heapify(coming)
        while coming or self.rows:
            while coming and coming[0][0] <= self.now:
                self._arrive(heapq.heappop(coming)[2])
            plan = self.scheduler.plan(self.rows, self.now, self.max_lead_s, self.chunk)
            if plan.idle:
                wake = [self.now + plan.nap_s] if plan.nap_s is not None else []
                wake += [coming[0][0]] if coming else []
                assert wake, "the scheduler sleeps while somebody waits"
                self.now = max(self.now, min(wake)) + 1e-6
                continue
            self._work(plan.prefill, plan.positions, plan.step)

    def _arrive(self, arrival: Arrival) -> None:
        if not self.admission.fits(
            arrival.prompt,
            realtime=arrival.realtime,
            resumed=False,
            max_load=self.max_load,
            patience_s=self.patience_s,
        ):
            self.refused.append((arrival, self.admission.retry_after_s()))
            return
        windows = Windows(arrival.prompt, self.positions)
        row = SimRow(arrival, self.now, arrival.prompt, windows)
        rolls = arrival.frames > windows.frames
        self.admission.entered(row, arrival.prompt, arrival.frames, realtime=arrival.realtime, rolls=rolls)
        self.rows.append(row)

    def _work(self, prefill: SimRow | None, positions: int, step: list[SimRow]) -> None:
        if prefill is not None:
            seconds = positions * self.machine.position_s
            prefill.prefill_left -= positions
            self.now += seconds
            self.times.prefilled(positions, seconds)
            if prefill.ready:
                step = [prefill, *step]
        if not step:
            return
        seconds = self.machine.step_s + self.machine.row_s * len(step)
        self.now += seconds
        self.times.stepped(len(step), seconds)
        if self.watched[0] <= self.now <= self.watched[1]:
            leads = [row.lead_s(self.now) for row in self.rows if row.realtime and row.started]
            self.spread_s = max(self.spread_s, max(leads) - min(leads))
        for row in step:
            row.spoke(self.now)
            self.admission.heard(row, 1)
            if row.frame >= row.arrival.frames:
                self.rows.remove(row)
                self.served.append(row)
                self.admission.left(row)
