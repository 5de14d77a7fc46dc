"""May one more turn begin? A forecast from what turns are doing and what steps cost. No clock, no tensors."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from chroma_models.engine.scheduler import FRAME_S
from chroma_models.engine.step_times import StepTimes
from chroma_models.types import FRAMES_PER_S

FULL_LOAD = 1.0  # what resumed turns may fill: their listeners have been promised an end
ROLLED_POSITIONS = 2  # positions fed again per frame by a turn long enough to roll over (Windows: half of each, twice)
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
FADING = 0.9  # of the mean reply's length, per reply that ended


@dataclass
class _Speaking:
    frames_left: int  # at most
    waiting_positions: int  # to prefill before the first frame
    rolls: bool
    realtime: bool
    frames: int = 0


class Admission:
    """The realtime turns that hold slots, and whether another one leaves everybody in real time.

    times    the measured costs
    round_s  seconds that one frame of so many rows takes; a split Backbone steps them in halves
    """

    def __init__(self, times: StepTimes, round_s: Callable[[int], float] | None = None) -> None:
        self._times = times
        self._round_s = round_s or times.step_s
        self._turns: dict[Hashable, _Speaking] = {}
        self._mean_frames: float | None = None

    # -- what happens ------------------------------------------------------------------------------------------

    def entered(self, turn: Hashable, positions: int, max_frames: int, *, realtime: bool, rolls: bool) -> None:
        """A turn holds a slot. positions: what it must prefill before its first frame."""
        self._turns[turn] = _Speaking(max_frames, positions, rolls, realtime)

    def heard(self, turn: Hashable, frames: int) -> None:
        """Frames of a turn came out of the engine."""
        speaking = self._turns.get(turn)
        if speaking is not None:
            speaking.waiting_positions = 0
            speaking.frames += frames
            speaking.frames_left -= frames

    def left(self, turn: Hashable) -> None:
        """The slot is free again."""
        speaking = self._turns.pop(turn, None)
        if speaking is not None and speaking.frames:
            mean = speaking.frames if self._mean_frames is None else self._mean_frames
            self._mean_frames = FADING * mean + (1 - FADING) * speaking.frames

    # -- what is forecast --------------------------------------------------------------------------------------

    def load(self, more: int = 0) -> float:
        """Share of real time that the realtime turns, and so many more, need: steps, and prefills of rolls."""
        realtime = [turn for turn in self._turns.values() if turn.realtime]
        rolling = sum(turn.rolls for turn in realtime)
        rolled_s = rolling * ROLLED_POSITIONS * self._times.position_s
        return (self._round_s(len(realtime) + more) + rolled_s) / FRAME_S

    def first_audio_s(self, positions: int) -> float:
        """When a turn with so much to prefill would be heard: behind those before it, in what steps leave over."""
        before = sum(turn.waiting_positions for turn in self._turns.values() if turn.realtime)
        free = max(0.05, 1 - self.load(1))
        return (before + positions) * self._times.position_s / free

    def fits(self, positions: int, *, realtime: bool, resumed: bool, max_load: float, patience_s: float) -> bool:
        """Would everybody stay in real time, and the new turn be heard within patience_s?

        Fast turns delay nobody and always fit. A turn that has the engine for itself fits as well: it gets what there
        is. Before a few steps were measured nothing is refused.
        """
        if not realtime or not self._times.trusted or not any(turn.realtime for turn in self._turns.values()):
            return True
        if resumed:
            return self.load(1) <= max(max_load, FULL_LOAD)
        return self.load(1) <= max_load and self.first_audio_s(positions) <= patience_s

    def next_end_s(self) -> float | None:
        """When the first of the turns should be over, by the replies so far; None while nothing is known."""
        mean = self._mean_frames
        if mean is None or not self._turns:
            return None
        left = (min(turn.frames_left, max(mean - turn.frames, mean / 8)) for turn in self._turns.values())
        return max(0.0, min(left)) / FRAMES_PER_S

    def retry_after_s(self) -> float:
        """What a refused turn is told."""
        end_s = self.next_end_s()
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, 2.0 if end_s is None else end_s))
