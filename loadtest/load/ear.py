"""What a caller has heard so far: answers, and a clock of playback for each."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.playback import Playback

REFUSALS = ("overloaded", "insufficient_quota", "stage_unavailable", "RESOURCE_EXHAUSTED", "UNAVAILABLE")


@dataclass
class Answer:
    """One answer. Times are seconds on the clock of the program."""

    playback: Playback  # since the commit
    begun_at: float
    done_at: float | None = None
    code: str | None = None  # why it failed
    reason: str | None = None  # why the server cut it short
    stopped_at: float | None = None  # the caller wanted it to be silent
    silent_at: float | None = None  # its last event so far

    @property
    def silence_s(self) -> float | None:
        """From the wish for silence to the last event. None where everything had come before."""
        if self.stopped_at is None or self.done_at is None or self.done_at < self.stopped_at:
            return None
        return max(self.done_at, self.silent_at or 0.0) - self.stopped_at


@dataclass
class Ear:
    """Filled by whoever reads the connection, asked by the caller. Answers that are stopped are no longer played."""

    answers: list[Answer] = field(default_factory=list)
    closed: str | None = None  # why the connection ended, a code
    _by_id: dict[str, Answer] = field(default_factory=dict)
    _committed_at: float | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def committed(self) -> None:
        self._committed_at = time.monotonic()

    def begun(self, name: str) -> None:
        now = time.monotonic()
        self._by_id[name] = answer = Answer(Playback(self._committed_at or now), now)
        self.answers.append(answer)
        self._tell()

    def audio(self, name: str, pcm_bytes: int) -> None:
        """int16 mono at 24 kHz."""
        now, answer = time.monotonic(), self._by_id[name]
        answer.silent_at = now
        if answer.stopped_at is None:
            answer.playback.heard(pcm_bytes, now)
        self._tell()

    def done(self, name: str, code: str | None = None, reason: str | None = None) -> None:
        answer = self._by_id[name]
        answer.done_at, answer.code, answer.reason = time.monotonic(), code, reason
        self._tell()

    def close(self, code: str) -> None:
        """Nothing more comes. Answers that were not done are cut off by that."""
        if self.closed is None:
            self.closed = code
        for answer in self.answers:
            if answer.done_at is None:
                answer.done_at, answer.code = time.monotonic(), code
        self._tell()

    def wait(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Whether it came true, in time and before the connection ended."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.closed is not None, within_s)
        return condition()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


def is_refusal(code: str) -> bool:
    return code in REFUSALS
