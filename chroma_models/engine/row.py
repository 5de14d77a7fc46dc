"""One running turn inside the Backbone's step loop."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from chroma_models.engine.slots import Slot
from chroma_models.interleave import segment_positions, wants_pair
from chroma_models.types import FRAMES_PER_S, Finished, FinishReason, TextStep, Turn, Usage

HOLD_FRAMES = 4  # a row held for its lead waits until this many frames of it are used up, then makes them in a burst


@dataclass
class Row:
    """Host-side state of a slot. Only the engine's thread touches it."""

    slot: Slot
    turn: Turn
    prompt: Tensor | None  # positions still to prefill, [n, hidden]
    opened_at: float
    prompt_positions: int
    position: int = 0  # positions the KV slot holds
    frame: int = 0  # the next frame's index
    steps: deque[TextStep] = field(default_factory=deque)  # arrived, not yet spoken
    text_ended: bool = False  # im_end was injected
    text_cut: bool = False  # the Reasoner stopped without im_end
    started_at: float | None = None  # when playback could begin: the first frame's time
    started_frame: int = 0
    held: bool = False
    in_flight: bool = False
    prefill_s: float = 0.0
    step_s: float = 0.0
    waited_s: float = 0.0  # for text
    idle_since: float | None = None

    @property
    def pair_due(self) -> bool:
        return wants_pair(self.frame) and not self.text_ended

    @property
    def segment(self) -> int:
        return segment_positions(self.frame, self.pair_due)

    def lead_s(self, now: float) -> float:
        if self.started_at is None:
            return 0.0
        return (self.frame - self.started_frame) / FRAMES_PER_S - (now - self.started_at)

    def must_wait(self, now: float, max_lead_s: float) -> bool:
        """Is the row too far ahead of playback? Once held, it waits until a burst of frames fits again."""
        if self.turn.pace == "fast":
            return False
        limit = max_lead_s - HOLD_FRAMES / FRAMES_PER_S if self.held else max_lead_s
        self.held = self.lead_s(now) > limit
        return self.held

    def end_reason(self, positions: int) -> FinishReason | None:
        """Why the row cannot make another frame, if it cannot."""
        if self.frame >= self.turn.limits.max_frames:
            return "max_reply"
        if self.pair_due and not self.steps and self.text_cut:
            return "max_text_tokens"
        if self.position + self.segment > positions:
            return "positions"
        return None

    def proposed(self, step: TextStep | None, im_end: int, now: float) -> None:
        """The row's next segment is on its way."""
        self.position += segment_positions(self.frame, step is not None)
        self.in_flight = True
        self.text_ended = self.text_ended or (step is not None and step.token == im_end)
        if self.idle_since is not None:
            self.waited_s += now - self.idle_since
            self.idle_since = None

    def spoke(self, now: float) -> None:
        """A frame is out."""
        if self.started_at is None:
            self.started_at, self.started_frame = now, self.frame
        self.frame += 1
        if self.pair_due and not self.steps:
            self.idle_since = now

    def finished(self, reason: FinishReason) -> Finished:
        timing = {
            "backbone.prefill": self.prefill_s,
            "backbone.steps": self.step_s,
            "backbone.text_wait": self.waited_s,
        }
        return Finished(reason, Usage(frames=self.frame), timing)


def due(rows: Sequence[Row], now: float, max_lead_s: float) -> list[Row]:
    """The rows that can step now: prefilled, their text there if they need it, and not too far ahead."""
    return [
        row
        for row in rows
        if row.prompt is None
        and not row.in_flight
        and (row.steps or not row.pair_due)
        and not row.must_wait(now, max_lead_s)
    ]
