"""Stages that share a device, how busy they make it, and how many streams that allows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from loadtest.plan.curve import Curve
from loadtest.plan.queueing import late_share, wait_s

FRAME_MS = 80.0
BUSIEST = 0.95  # of a device, whatever is promised: what stands still for a moment must be able to catch up
HOST_BUSIEST = 0.7  # of a stage's one interpreter
LEAD_S = 0.64  # that a stream has before it is made to wait for others
MOST = 1 << 14  # streams of a device, whatever the curves say


@dataclass(frozen=True)
class Stage:
    """busy: ms of the device that a frame of every stream takes. first_ms: its work for a new turn, before any audio.

    host_us: of one interpreter, per stream and second. Bytes are of the device.
    """

    name: str
    busy: Curve
    first_ms: float = 0.0
    host_us: float = 0.0
    host_source: str = "not known"
    weights_bytes: float = 0.0
    slot_bytes: float = 0.0
    process_bytes: float = 0.0
    first_source: str = "not known"


@dataclass(frozen=True)
class Promised:
    """What the streams of a pool must be given. first_audio_s: what may be waited, beside the work itself."""

    first_audio_wait_s: float
    share: float  # of turns
    underrun: float  # share of turns that may have one


@dataclass(frozen=True)
class Limit:
    """So many streams, and what does not allow more."""

    streams: int
    what: str
    stage: str


@dataclass(frozen=True)
class Pool:
    """One device, or several cores alike. memory_bytes: 0 for one that is not counted.

    piece_override_s: what a turn waits for at a time; by default half a step of all stages and half the work of a new
    turn. reply_s: of speech. arrivals_hz: new turns, which come whether many or few are being spoken.
    """

    name: str
    stages: tuple[Stage, ...]
    reply_s: float
    arrivals_hz: float = 0.0
    memory_bytes: float = 0.0
    parallel: float = 1.0
    piece_override_s: float | None = None

    def busy(self, streams: float) -> float:
        """Share of the device that is busy: steps for those who listen, and the work of new turns."""
        return sum(self.share(stage, streams) for stage in self.stages)

    def share(self, stage: Stage, streams: float) -> float:
        """Of the device, by one stage."""
        return (stage.busy.ms(streams) / FRAME_MS + self.arrivals_hz * stage.first_ms / 1e3) / self.parallel

    def piece_s(self, streams: float) -> float:
        if self.piece_override_s is not None:
            return self.piece_override_s
        return sum(stage.busy.ms(streams) + stage.first_ms for stage in self.stages) / 2e3

    def wait_s(self, streams: float, share: float) -> float:
        return wait_s(self.busy(streams), self.piece_s(streams), share)

    def underrun(self, streams: float) -> float:
        """Share of turns with one: a list of four frames is late, in any of a turn."""
        lists = max(1.0, self.reply_s / (4 * FRAME_MS / 1e3))
        late = late_share(self.busy(streams), self.piece_s(streams), LEAD_S)
        return float(1 - (1 - min(1.0, late)) ** lists)

    def memory(self, streams: int) -> dict[str, float]:
        """Bytes by what holds them; together all of the device."""
        parts: dict[str, float] = {}
        for stage in self.stages:
            parts[f"{stage.name} weights"] = stage.weights_bytes
            parts[f"{stage.name} slots"] = streams * stage.slot_bytes
        parts["processes"] = sum(stage.process_bytes for stage in self.stages)
        return {**parts, "free": self.memory_bytes - sum(parts.values())}

    @cached_property
    def most(self) -> float:
        """Streams that the memory holds."""
        if not self.memory_bytes:
            return math.inf
        left = self.memory(0)["free"]
        each = sum(stage.slot_bytes for stage in self.stages)
        return left / each if each else math.inf

    def limits(self, promised: Promised) -> list[Limit]:
        """Every limit by itself, the tightest first. A device's own are laid at the stage that keeps it busiest."""

        def most(holds: Callable[[int], bool]) -> int:
            low, high = 0, MOST + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if holds(middle) else (low, middle)
            return low

        found = [
            (most(lambda n: self.wait_s(n, promised.share) <= promised.first_audio_wait_s), "first audio"),
            (most(lambda n: self.underrun(n) <= promised.underrun), "underruns"),
            (most(lambda n: self.busy(n) <= BUSIEST), "the device"),
        ]
        limits = [Limit(n, what, self.busiest(max(1, n)).name) for n, what in found]
        largest = max(self.stages, key=lambda stage: stage.slot_bytes)
        limits.append(Limit(int(min(MOST, max(0.0, self.most))), "memory", largest.name))
        limits += [
            Limit(int(HOST_BUSIEST * 1e6 / stage.host_us), "its interpreter", stage.name)
            for stage in self.stages
            if stage.host_us
        ]
        return sorted(limits, key=lambda limit: limit.streams)

    def busiest(self, streams: float) -> Stage:
        return max(self.stages, key=lambda stage: self.share(stage, streams))
