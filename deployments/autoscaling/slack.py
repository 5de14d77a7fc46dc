"""How many replicas of a stage: by slots and time in use, and by what listeners feel once these run short.

Serve's controller runs this as the deployments' autoscaling policy, and the simulated day (day.py) the same code. It
needs nothing but the standard library: Serve carries it as a pickle, and the simulation knows no Ray.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HISTORY = "slack_history"  # in the policy's state: [time, work] pairs, oldest first
EVERY_S = 5.0  # a pair is kept
FALLS_S = 300.0  # a fall of the work counts once it has lasted so long
TREND_S = 120.0  # over which the work's rise is read
BUSY_USE = 0.5  # a stage with less to do holds nobody up: thin leads come from elsewhere
GROWTH = 1.25  # when listeners feel it, and at least one replica more
AT_EASE_S = 10.0  # the lead of a stage that nobody listens to
ROUNDING = 1e-9


@dataclass(frozen=True)
class Felt:
    """What one replica tells, a mean over the policy's look-back."""

    slots: float  # for turns; 0 where the stage has none
    slots_held: float
    load: float = 0.0  # share of real time that its work takes
    lead_s: float = AT_EASE_S  # the least of its listeners
    admit_wait_s: float = 0.0  # the longest of late, until a turn was admitted
    refused: float = 0.0  # turns, of late

    @property
    def use(self) -> float:
        """Of slots or of time, whichever is shorter; 1 is full."""
        return max(self.slots_held / self.slots if self.slots else 0.0, self.load)


@dataclass(frozen=True)
class Goals:
    """What an operator wants of a stage; settings.Autoscaling has the reasons and the defaults."""

    target_use: float
    slack_use: float
    min_lead_s: float
    max_admit_wait_s: float
    cold_start_s: float


@dataclass(frozen=True)
class Sample:
    at_s: float
    work: float  # in replicas that are full


def pressed(felt: Sequence[Felt], goals: Goals) -> bool:
    """Does anybody feel that the stage is too small?"""
    return any(
        one.refused > 0
        or (one.use >= BUSY_USE and (one.lead_s < goals.min_lead_s or one.admit_wait_s > goals.max_admit_wait_s))
        for one in felt
    )


def wanted(felt: Sequence[Felt], running: int, target: int, goals: Goals, history: Sequence[Sample]) -> int:
    """Replicas that the stage should have: at least as many as hold what runs, were they full.

    felt     of those that have told something
    running  replicas there are
    target   how many were asked for last; those that still start are not asked for again
    history  of the work, oldest first, the last sample being of now
    """
    if not felt or not history:
        return target
    now = history[-1]
    rise = _rise(history) * goals.cold_start_s
    up = math.ceil((now.work + rise) / goals.target_use - ROUNDING)
    if pressed(felt, goals):
        up = max(up, running + max(1, math.floor(running * (GROWTH - 1))))
    if up >= target:
        return up
    lasting = max(sample.work for sample in history if sample.at_s >= now.at_s - FALLS_S)
    return min(target, max(up, math.ceil((lasting + rise) / goals.slack_use - ROUNDING), 1))


def _rise(history: Sequence[Sample]) -> float:
    """Of the work per second, over TREND_S; 0 where it falls."""
    now = history[-1]
    first = next(sample for sample in history if sample.at_s >= now.at_s - TREND_S)
    span_s = now.at_s - first.at_s
    return max(0.0, (now.work - first.work) / span_s) if span_s >= TREND_S / 4 else 0.0


class SlackPolicy:
    """As Serve calls it: with its context, once a control loop. Goals are keyword arguments."""

    def __init__(self, **goals: float) -> None:
        self._goals = Goals(**goals)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        felt, now_s = _told(context.aggregated_metrics or {}), float(context.current_time)
        history = [Sample(*pair) for pair in context.policy_state.get(HISTORY, ())]
        kept = [one for one in history if one.at_s >= now_s - FALLS_S]
        if felt:
            now = Sample(now_s, sum(one.use for one in felt))
            history = [*kept, now]
            if not kept or now_s - kept[-1].at_s >= EVERY_S:
                kept = history
        count = wanted(felt, context.current_num_replicas, context.target_num_replicas, self._goals, history)
        low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return min(max(count, low), high), {HISTORY: [[one.at_s, one.work] for one in kept]}


def _told(by_name: Mapping[str, Mapping[Any, float]]) -> list[Felt]:
    """From the names that replicas record, each with a value by replica; other names are left alone."""
    names = [name for name in Felt.__dataclass_fields__ if name in by_name]
    replicas = by_name.get("slots_held", {})
    return [Felt(**{name: by_name[name][one] for name in names if one in by_name[name]}) for one in replicas]
