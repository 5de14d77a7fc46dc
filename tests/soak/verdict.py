"""Does a series grow? A slope that outliers do not move, and how far noise alone could have moved it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 40  # medians that the line goes through; what is faster than a block is no trend
FEWEST = 8  # of them, below which nothing can be said
DAY_S = 86_400.0
DOUBT = 3.0  # standard errors of the slope that noise is granted


@dataclass(frozen=True)
class Limit:
    """How much a quantity may have grown over the whole time after the warm-up."""

    share: float  # of its level
    floor: float  # in its unit, where its level is small


@dataclass(frozen=True)
class Trend:
    level: float  # median after the warm-up
    growth: float  # of the line over the time after the warm-up, in the unit of the series
    surely: float  # of that, what noise cannot explain; below 0 where it may as well have fallen
    allowed: float
    per_day: float  # the same slope, of a whole day

    @property
    def flat(self) -> bool:
        return self.surely <= self.allowed


def trend(times_s: Sequence[float], values: Sequence[float], warm_up_s: float, limit: Limit) -> Trend | None:
    """None where too little was measured after the warm-up. times_s count from the beginning, in order."""
    t, y = np.asarray(times_s, float), np.asarray(values, float)
    t, y = t[t >= warm_up_s], y[np.asarray(times_s, float) >= warm_up_s]
    blocks = min(BLOCKS, len(t))
    if blocks < FEWEST or t[-1] <= t[0]:
        return None
    parts = np.array_split(np.arange(len(t)), blocks)
    x = np.array([np.median(t[part]) for part in parts])
    m = np.array([np.median(y[part]) for part in parts])
    i, j = np.triu_indices(blocks, 1)
    slope = float(np.median((m[j] - m[i]) / (x[j] - x[i])))  # Theil and Sen
    rest = m - slope * x
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    error = spread / (float(np.std(x)) * blocks**0.5)
    span_s, level = float(t[-1] - t[0]), float(np.median(y))
    surely = (slope - DOUBT * error) * span_s
    return Trend(level, slope * span_s, surely, max(limit.floor, limit.share * abs(level)), slope * DAY_S)
