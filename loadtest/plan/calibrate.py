"""A planner's pool out of a short measurement of a machine under little load, to say what it holds under more."""

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
    """A load at which the machine kept up. cores: busy ones, by process."""

    callers: int
    cores: dict[str, float]
    first_audio_mean_s: float
    first_audio_tail_s: float  # at the promised share of turns


@dataclass(frozen=True)
class Calibration:
    """alone_s: first audio at the promised share of turns if nobody else were there."""

    pool: Pool
    alone_s: float
    share: float
    cores: float

    def limits(self, slo: Slo) -> list[Limit]:
        """In callers, the tightest first."""
        first, underrun = slo.find("first_audio"), slo.find("underrun")
        slack_s = math.inf if first is None else max(0.0, first.most - self.alone_s)
        return self.pool.limits(Promised(slack_s, self.share, underrun.most if underrun else 1.0))


def calibrate(observed: Sequence[Observed], cores: float, reply_s: float, share: float) -> Calibration:
    """cores: those that the server and its callers can have. Raises ValueError for fewer than two loads.

    Busy cores grow along a straight line with the callers, for every process by itself. Waiting grows as in an M/M/1
    queue; the size of a piece is the one that fits the means best.
    """
    if len({each.callers for each in observed}) < 2:
        raise ValueError("A line needs two loads at least.")
    callers = np.array([each.callers for each in observed], float)
    names = sorted({name for each in observed for name in each.cores})
    ends = (callers.min(), callers.max())
    stages = []
    for name in names:
        used = np.array([each.cores.get(name, 0.0) for each in observed])
        slope, start = np.polyfit(callers, used, 1)
        points = [Point(n, max(0.0, float(start + slope * n)) * FRAME_MS, SOURCE) for n in ends]
        stages.append(Stage(name, Curve.of(points)))
    pool = Pool("this machine", tuple(stages), reply_s, parallel=cores)
    piece_s, _ = _piece([pool.busy(n) for n in callers], [each.first_audio_mean_s for each in observed])
    pool = Pool("this machine", tuple(stages), reply_s, parallel=cores, piece_override_s=piece_s)
    alone = [each.first_audio_tail_s - wait_s(pool.busy(each.callers), piece_s, share) for each in observed]
    return Calibration(pool, max(0.0, float(np.median(alone))), share, cores)


def _piece(busy: Sequence[float], means: Sequence[float]) -> tuple[float, float]:
    """(seconds of a piece, first audio without a wait), by least squares: mean = alone + busy / (1 - busy) * piece."""
    growth = np.array([share / (1 - share) if share < 0.99 else 99.0 for share in busy])
    piece_s, alone_s = np.polyfit(growth, np.array(means), 1)
    return max(1e-3, float(piece_s)), float(alone_s)
