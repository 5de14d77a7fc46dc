"""A planner's pool out of a short measurement of a machine: a few light loads, and one that is far too much for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.plan.curve import Curve, Point
from loadtest.plan.pool import FRAME_MS, Limit, Pool, Promised, Stage
from loadtest.plan.queueing import wait_s
from loadtest.slo import Slo

SOURCE = "calibrated"


@dataclass(frozen=True)
class Observed:
    """A load, and what it did to the machine. cores: busy ones, by process. speech: seconds heard in a second."""

    callers: int
    cores: dict[str, float]
    speech: float
    first_audio_mean_s: float
    first_audio_tail_s: float  # at the promised share of turns


@dataclass(frozen=True)
class Calibration:
    """alone_s: first audio at the promised share of turns if nobody else were there. filled: callers who keep all cores
    busy."""

    pool: Pool
    alone_s: float
    share: float
    cores: float
    filled: float

    def limits(self, slo: Slo) -> list[Limit]:
        """In callers, the tightest first."""
        first, underrun = slo.find("first_audio"), slo.find("underrun")
        slack_s = math.inf if first is None else max(0.0, first.most - self.alone_s)
        return self.pool.limits(Promised(slack_s, self.share, underrun.most if underrun else 1.0))


def calibrate(light: Sequence[Observed], full: Observed, cores: float, reply_s: float, share: float) -> Calibration:
    """light: loads that the machine kept up with. full: one that keeps it as busy as it can be. cores: those that the
    server and its callers can have. Raises ValueError for fewer than two light loads, or a full one that is not.

    Callers who are kept waiting ask for less, so a full machine is known by what it gets done: the callers it is full
    with are those who would hear as much speech if nobody waited. Up to there, a process' busy cores run along the
    light loads' line and then straight to what it used when full: steps are shared by more rows the more there is to
    do, and the light loads' line alone would promise too little.

    A turn waits as in an M/M/1 queue for pieces of half its own work, done by all cores together.
    """
    if len({each.callers for each in light}) < 2:
        raise ValueError("A line needs two light loads at least.")
    callers = np.array([each.callers for each in light], float)
    least, most = float(callers.min()), float(callers.max())
    filled = full.speech * float(callers.sum()) / sum(each.speech for each in light)
    if filled <= most:
        raise ValueError(f"The full load did no more than that of {most:g} callers, who are no light load then.")
    stages = []
    for name in sorted({name for each in light for name in each.cores}):
        used = np.array([each.cores.get(name, 0.0) for each in light])
        slope, start = np.polyfit(callers, used, 1)
        busy = {n: float(start + slope * n) for n in (least, most)} | {filled: full.cores.get(name, 0.0)}
        points = [Point(n, max(0.0, used) * FRAME_MS, SOURCE) for n, used in busy.items()]
        stages.append(Stage(name, Curve.of(points)))
    pool = Pool("this machine", tuple(stages), reply_s, parallel=cores)
    piece_s = float(np.median([_piece_s(each.first_audio_mean_s, pool.busy(each.callers), cores) for each in light]))
    pool = Pool("this machine", tuple(stages), reply_s, parallel=cores, piece_override_s=piece_s)
    alone = [each.first_audio_tail_s - wait_s(pool.busy(each.callers), piece_s, share) for each in light]
    return Calibration(pool, max(0.0, float(np.median(alone))), share, cores, filled)


def _piece_s(mean_s: float, busy: float, cores: float) -> float:
    """Half a turn's own work by all cores, where first audio is that work and an M/M/1 queue's mean wait for pieces."""
    growth = busy / (1 - busy) if busy < 0.99 else 99.0
    return mean_s / (2 * cores + growth)
