"""One running turn inside the Backbone's step loop."""

from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

from chroma_models.engine.slots import Slot
from chroma_models.engine.voice_cache import VoiceKey
from chroma_models.interleave import Windows, segment_positions, wants_pair
from chroma_models.types import FRAMES_PER_S, Finished, FinishReason, Frame, TextStep, Turn, Usage


@dataclass
class Row:
    """Host-side state of a slot. Only the engine's thread touches it. What the scheduler sees of it is Paced."""

    slot: Slot
    turn: Turn
    windows: Windows
    prompt: Tensor | None  # positions still to prefill, [n, hidden]
    position: int = 0  # positions the KV slot holds
    frame: int = 0  # the next frame's index
    recent: list[Frame] = field(default_factory=list)  # the frames of the window, which a roll feeds again
    voice_key: VoiceKey | None = None  # set until the prompt this row prefills has been kept for others
    steps: deque[TextStep] = field(default_factory=deque)  # arrived, not yet spoken
    text_ended: bool = False  # im_end was injected
    text_cut: bool = False  # the Reasoner stopped without im_end
    fed_at: float | None = None  # when its first text step came
    first_frame_s: float = 0.0  # from there to the first frame
    started_at: float | None = None  # when playback could begin: the first frame's time
    started_frame: int = 0
    held: bool = False
    lead_limit_s: float = 0.0
    in_flight: int = 0  # frames proposed and not yet out
    ahead: int = 0  # frames that may be proposed beyond the one that is awaited
    prefill_s: float = 0.0
    step_s: float = 0.0
    waited_s: float = 0.0  # for text
    idle_since: float | None = None

    @property
    def realtime(self) -> bool:
        return self.turn.pace == "realtime"

    @property
    def started(self) -> bool:
        return self.started_at is not None

    @property
    def prefill_left(self) -> int:
        return 0 if self.prompt is None else self.prompt.shape[0]

    @property
    def ready(self) -> bool:
        """Can it step now: prefilled, its text there if it needs it, and of what is in flight nothing to wait for?

        A row that goes `ahead` is stepped again before its last frame is out. Should that frame end the turn, the one
        after it is thrown away.
        """
        if self.prompt is not None or (self.pair_due and not self.steps):
            return False
        if not self.in_flight:
            return True
        foreseen = self.next_frame >= self.turn.limits.max_frames or self.windows.rolls(self.next_frame)
        return self.in_flight <= self.ahead and not foreseen

    @property
    def next_frame(self) -> int:
        """Index of the frame that is proposed next."""
        return self.frame + self.in_flight

    @property
    def pair_due(self) -> bool:
        return wants_pair(self.next_frame) and not self.text_ended

    def lead_s(self, now: float) -> float:
        if self.started_at is None:
            return 0.0
        return (self.frame - self.started_frame) / FRAMES_PER_S - (now - self.started_at)

    def end_reason(self) -> FinishReason | None:
        """Why the row makes no further frame, if it makes none."""
        if self.frame >= self.turn.limits.max_frames:
            return "max_reply"
        if self.pair_due and not self.steps and self.text_cut:
            return "max_text_tokens"
        return None

    def proposed(self, step: TextStep | None, im_end: int, now: float) -> None:
        """The row's next segment is on its way."""
        self.position += segment_positions(self.next_frame, step is not None)
        self.in_flight += 1
        self.text_ended = self.text_ended or (step is not None and step.token == im_end)
        if self.idle_since is not None:
            self.waited_s += now - self.idle_since
            self.idle_since = None

    def spoke(self, frame: Frame, now: float) -> None:
        """A frame is out."""
        if self.started_at is None:
            self.started_at, self.started_frame = now, self.frame
            self.first_frame_s = now - (self.fed_at or now)
        else:  # a listener who had nothing left waited: he plays on from here, and is no further behind than others
            self.started_at -= min(0.0, self.lead_s(now))
        self.recent.append(frame)
        self.frame += 1
        if self.pair_due and not self.steps:
            self.idle_since = now

    def forget(self) -> None:
        """Drop the frames that the next frame's window no longer holds."""
        outside = self.windows.start(self.frame) - self.recent[0].index
        del self.recent[:outside]

    def finished(self, reason: FinishReason) -> Finished:
        timing = {
            "backbone.first_frame": self.first_frame_s,
            "backbone.prefill": self.prefill_s,
            "backbone.steps": self.step_s,
            "backbone.text_wait": self.waited_s,
        }
        return Finished(reason, Usage(frames=self.frame), timing)
