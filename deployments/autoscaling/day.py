"""A day of traffic, simulated: what the autoscaler does with it, beside counting requests alone.

python -m deployments.autoscaling.day --json FILE --plot FILE

One stage, whose replicas take cold_start_s to come. Turns arrive at random along a day's curve with a sudden rush in
the evening, and hold a slot for as long as they are made. A replica admits while it has slots and its forecast leaves
everybody in real time, as the Backbone does; a turn that finds no room within admit_timeout_s is refused. The policy
is the very code that Serve runs (slack.py), beside Serve's own rule of requests under way, both under Serve's delays.
"""

import argparse
import json
import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deployments.autoscaling.slack import AT_EASE_S, SlackPolicy

DAY_S = 86_400
CONTROL_S = 5  # between two decisions
TOLD_S = 2  # between two pushes of what replicas measure
ADMIT_TIMEOUT_S = 2
MAX_LOAD = 0.85  # of real time, by the forecast
BIN_S = 300  # of what is shown
PEAKS = ((9.5, 1.5, 0.7), (14.5, 2.0, 0.8), (20.5, 1.8, 1.0))  # hour, width in hours, height
RUSH = (20.0, 0.25, 0.8)  # hour, hours, and how much more all at once

Policy = Callable[[Any], tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Day:
    """peak: streams that would run at once at the busiest, the rush apart."""

    slots: int = 256  # of a replica
    realtime: int = 256  # streams that a replica keeps in real time
    peak: float = 1800.0
    night: float = 0.08  # of the peak
    turn_s: float = 9.0  # mean; a slot is held so long
    cold_start_s: int = 180
    min_replicas: int = 2
    max_replicas: int = 24
    look_back_s: int = 15
    upscale_delay_s: float = 0.0
    downscale_delay_s: float = 300.0
    gpus: float = 1.0  # of a replica
    seed: int = 1

    @property
    def room(self) -> int:
        """Streams that a replica admits."""
        return min(self.slots, math.floor(MAX_LOAD * self.realtime))

    def demand(self, second: int) -> float:
        """Streams that would run at once, were there room."""
        hour = second / 3600
        hills = sum(height * math.exp(-(((hour - at) / width) ** 2)) for at, width, height in PEAKS)
        rush = RUSH[2] if RUSH[0] <= hour < RUSH[0] + RUSH[1] else 0.0
        return self.peak * (self.night + (1 - self.night) * min(1.0, hills) + rush)


@dataclass
class Context:
    """As much of Serve's as policies read."""

    current_num_replicas: int
    target_num_replicas: int
    current_time: float
    aggregated_metrics: dict[str, dict[int, float]]
    policy_state: dict[str, Any]
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    total_num_requests: float


def by_requests(target_ongoing_requests: float) -> Policy:
    """Serve's own rule: so many requests under way for each replica."""

    def policy(context: Context) -> tuple[int, dict[str, Any]]:
        wanted = math.ceil(context.total_num_requests / target_ongoing_requests)
        low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return min(max(wanted, low), high), {}

    return policy


@dataclass
class Delays:
    """Serve's: a wish counts once it has lasted."""

    up_s: float
    down_s: float
    wish: int = 0  # 1: to grow, -1: to shrink
    since: float = 0.0

    def decide(self, wanted: int, target: int, now: float) -> int:
        wish = (wanted > target) - (wanted < target)
        if wish != self.wish:
            self.wish, self.since = wish, now
        if wish and now - self.since >= (self.up_s if wish > 0 else self.down_s):
            self.wish = 0
            return wanted
        return target


@dataclass
class Run:
    """A day under a policy; steps are seconds."""

    day: Day
    policy: Policy
    ready: int = 0
    starting: deque[int] = field(default_factory=deque)  # when each is ready
    streams: int = 0
    waiting: deque[list[int]] = field(default_factory=deque)  # since when, how many

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.day.seed)
        self.streams = round(self.day.demand(0))
        self.ready = max(self.day.min_replicas, math.ceil(self.streams / self.day.room))
        self.delays = Delays(self.day.upscale_delay_s, self.day.downscale_delay_s)
        self.state: dict[str, Any] = {}
        self.lately: deque[tuple[int, float, float]] = deque(maxlen=self.day.look_back_s)
        self.told: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self.turns = self.refused = self.resumed = 0
        self.replica_s = 0
        self.shown: list[dict[str, float]] = []

    def go(self, seconds: int = DAY_S) -> dict[str, Any]:
        refused_before = 0
        for second in range(seconds):
            while self.starting and self.starting[0] <= second:
                self.starting.popleft()
                self.ready += 1
            self._traffic(second)
            if second % TOLD_S == 0 and self.lately:
                self.told = tuple(float(mean) for mean in np.mean(self.lately, axis=0))  # type: ignore[assignment]
            if second % CONTROL_S == 0:
                self._control(second)
            self.replica_s += self.ready + len(self.starting)
            if second % BIN_S == BIN_S - 1:
                gone, refused_before = self.refused - refused_before, self.refused
                figures = {"hour": round((second + 1) / 3600, 3), "streams": self.streams, "refused": gone}
                self.shown.append({**figures, "replicas": self.ready, "starting": len(self.starting)})
        arrived = self.turns + self.refused
        return {
            "turns": self.turns,
            "refused": self.refused,
            "refused_share": round(self.refused / max(1, arrived), 5),
            "resumed_by_scaling_down": self.resumed,
            "gpu_hours": round(self.day.gpus * self.replica_s / 3600, 1),
            "most_replicas": int(max(one["replicas"] for one in self.shown)),
            "series": self.shown,
        }

    def _traffic(self, second: int) -> None:
        day = self.day
        ended = int(self.rng.binomial(self.streams, 1 - math.exp(-1 / day.turn_s)))
        self.streams -= ended
        come = int(self.rng.poisson(day.demand(second) / day.turn_s))
        self.waiting.append([second, come])
        free = max(0, self.ready * day.room - self.streams)
        longest = 0
        while self.waiting and free:
            since, count = self.waiting[0]
            taken = min(count, free)
            free, self.streams, self.turns = free - taken, self.streams + taken, self.turns + taken
            longest = max(longest, second - since) if taken else longest
            self.waiting[0][1] -= taken
            if not self.waiting[0][1]:
                self.waiting.popleft()
        refused = 0
        while self.waiting and second - self.waiting[0][0] >= ADMIT_TIMEOUT_S:
            refused += self.waiting.popleft()[1]
        self.refused += refused
        self.lately.append((self.streams, float(longest), float(refused)))

    def _control(self, second: int) -> None:
        day, (streams, waits_s, refused) = self.day, self.told
        each = streams / self.ready
        told = {
            "slots": float(day.slots),
            "slots_held": each,
            "load": each / day.realtime,
            "lead_s": AT_EASE_S if each <= day.realtime else 0.0,
            "admit_wait_s": waits_s,
            "refused": refused / self.ready,
        }
        target = self.ready + len(self.starting)
        metrics = {name: dict.fromkeys(range(self.ready), value) for name, value in told.items()}
        low, high = day.min_replicas, day.max_replicas
        context = Context(self.ready, target, float(second), metrics, self.state, low, high, streams)
        wanted, self.state = self.policy(context)
        decided = self.delays.decide(wanted, target, float(second))
        for _ in range(target, decided):
            self.starting.append(second + day.cold_start_s)
        for _ in range(decided, target):
            if self.starting:
                self.starting.pop()
            else:
                self.resumed += round(self.streams / self.ready)  # at most: turns shorter than its grace end in peace
                self.ready -= 1


SCENARIOS = {
    "as planned": Day(),
    "turns weigh more": Day(realtime=160),  # longer prompts, a slower card: what no request count tells
}
GOALS = {"target_use": 0.7, "slack_use": 0.55, "min_lead_s": 1.0, "max_admit_wait_s": 0.5}


def policies(day: Day) -> dict[str, Policy]:
    """Both want 70 % of what a replica was planned for."""
    planned = Day()
    return {
        "slack": SlackPolicy(**GOALS, cold_start_s=float(day.cold_start_s)),
        "requests alone": by_requests(GOALS["target_use"] * planned.slots),
    }


def simulate() -> dict[str, Any]:
    return {
        name: {"day": asdict(day), **{kind: Run(day, policy).go() for kind, policy in policies(day).items()}}
        for name, day in SCENARIOS.items()
    }


def plot(scenarios: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = ("streams", "replicas", "refused")
    figure, panels = pyplot.subplots(len(rows), len(scenarios), figsize=(12, 8), sharex=True, squeeze=False)
    for column, (name, told) in enumerate(scenarios.items()):
        for kind, style in (("slack", "-"), ("requests alone", "--")):
            series = told[kind]["series"]
            hours = [one["hour"] for one in series]
            label = f"{kind}: {told[kind]['gpu_hours']:.0f} GPU h, {told[kind]['refused_share']:.2%} refused"
            for row, what in enumerate(rows):
                panels[row][column].plot(hours, [one[what] for one in series], style, label=label)
        panels[0][column].set(title=name)
        panels[0][column].legend(fontsize=8)
        panels[-1][column].set(xlabel="hour of the day")
    for row, what in enumerate(("streams at once", "replicas ready", "refused in 5 minutes")):
        panels[row][0].set(ylabel=what)
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.autoscaling.day", description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    scenarios = simulate()
    for name, told in scenarios.items():
        for kind in policies(Day()):
            one = told[kind]
            print(
                f"{name:17s} {kind:15s} {one['gpu_hours']:7.1f} GPU hours, {one['refused']:6d} of "
                f"{one['turns'] + one['refused']} turns refused ({one['refused_share']:.2%}), "
                f"{one['most_replicas']} replicas at most, {one['resumed_by_scaling_down']} turns moved"
            )
    if options.json:
        options.json.write_text(json.dumps({"simulation": "autoscaling-day", "scenarios": scenarios}) + "\n")
    if options.plot:
        plot(scenarios, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
