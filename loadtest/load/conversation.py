"""One caller from the first word to the last, over any protocol; writes a record for every question."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.load.behaviour import Script, TurnPlan
from loadtest.load.call import Call, Refused
from loadtest.load.ear import Answer, is_refusal
from loadtest.load.records import Outcome, TurnRecord
from loadtest.microphone import Utterance

ANSWER_S = 30.0  # longest that an answer, or its end, is waited for
SLOW_S = 120.0  # for slow readers
LOOK_S = 0.02  # how often a thing nobody tells of is looked at


@dataclass(frozen=True)
class Cut:
    """An answer that was cut short, and what it answers."""

    said: Utterance
    answer: Answer


class Conversation:
    """speaking: whether an answer is waited for or heard right now."""

    def __init__(
        self,
        call: Call,
        script: Script,
        tenant: str,
        clips: list[NDArray[np.int16]],
        write: Callable[[TurnRecord], None],
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """leaving: whether this is to be the last turn."""
        self._call, self._script, self._tenant, self._clips = call, script, tenant, clips
        self._write, self._leaving = write, leaving
        self._patience_s = SLOW_S if script.slow else ANSWER_S
        self.speaking = False

    def run(self) -> bool:
        """Whether the server took the call."""
        began_at = time.time()
        try:
            self._call.open()
        except Refused as error:
            outcome: Outcome = "refused" if is_refusal(error.code) else "failed"
            self._write(TurnRecord(began_at, time.time(), self._call.door, self._tenant, outcome, error.code))
            return False
        try:
            self._talk()
        finally:
            self.speaking = False
            self._call.close()
        return True

    def _talk(self) -> None:
        cut: Cut | None = None
        for plan in self._script.turns:
            if cut is None and not self._rest(plan.think_s):
                return
            self.speaking = True
            said = self._call.say((self._clips[plan.clip] * plan.gain).astype(np.int16))
            self._spoken(said, None if cut is None else cut.answer)
            if cut is not None:
                self._stopped(cut)
            answer = self._answer(said)
            if answer is None:
                self._record(said, None, "failed", self._call.ear.closed or "no_answer")
                return
            cut = self._hear(plan, said, answer)
            self.speaking = cut is not None
            if plan.ending == "hang_up" or self._call.ear.closed is not None:
                return

    def _rest(self, seconds: float) -> bool:
        """Thinks; whether the caller is still there."""
        ends_at = time.monotonic() + seconds
        while (left_s := ends_at - time.monotonic()) > 0:
            if self._leaving() or self._call.ear.wait(lambda: False, min(left_s, 0.5)) or self._call.ear.closed:
                return False
        return not self._leaving()

    def _spoken(self, said: Utterance, cut: Answer | None) -> None:
        """Returns when it is said. What it interrupts is no longer listened to from its first loud sample on."""
        ends_at = time.monotonic() + len(said.samples) / 24_000 + self._patience_s
        while not said.ended.is_set() and self._call.ear.closed is None and time.monotonic() < ends_at:
            time.sleep(LOOK_S)
            if cut is not None and cut.stopped_at is None and said.began_at is not None:
                cut.stopped_at = said.began_at

    def _answer(self, said: Utterance) -> Answer | None:
        """The answer to the whole of it: one that began while it was still being said is to a part of it."""
        ear = self._call.ear

        def found() -> Answer | None:
            later = [answer for answer in ear.answers if answer.begun_at >= said.ended_at]
            return later[-1] if said.ended.is_set() and later else None

        ear.wait(lambda: found() is not None, self._patience_s)
        return found()

    def _hear(self, plan: TurnPlan, said: Utterance, answer: Answer) -> Cut | None:
        """Until it is over or cut short, and recorded. Returns what the next question speaks over."""
        ear, player = self._call.ear, answer.playback
        ear.wait(lambda: player.first_audio_at is not None or answer.done_at is not None, self._patience_s)
        if player.first_audio_at is None:
            code = answer.code or answer.reason or "no_audio"
            self._record(said, answer, "refused" if is_refusal(code) else "failed", code)
            return None
        if plan.ending != "heard":
            self._played(answer, plan.played_s)
        playing = answer.code is None and time.monotonic() < player.silent_from
        if plan.ending == "hang_up":
            self._record(said, answer, "hung_up")
            self._call.hang_up()
        elif plan.ending == "barge_in" and playing:
            return Cut(said, answer)
        elif plan.ending == "cancel" and playing:
            answer.stopped_at = time.monotonic()
            if answer.done_at is None:
                self._call.cancel()
            self._stopped(Cut(said, answer))
        else:
            self._whole(said, answer)
        return None

    def _played(self, answer: Answer, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < min(ends_at, answer.playback.silent_from) and answer.code is None:
            time.sleep(LOOK_S)

    def _whole(self, said: Utterance, answer: Answer) -> None:
        """Heard out."""
        ended = self._call.ear.wait(lambda: answer.done_at is not None, self._patience_s)
        if answer.code is not None or not ended:
            self._record(said, answer, "failed", answer.code or "no_end")
            return
        time.sleep(max(0.0, answer.playback.silent_from - time.monotonic()))
        self._record(said, answer, "heard")

    def _stopped(self, cut: Cut) -> None:
        ended = self._call.ear.wait(lambda: cut.answer.done_at is not None, self._patience_s)
        outcome: Outcome = "cut" if ended and cut.answer.code is None else "failed"
        self._record(cut.said, cut.answer, outcome, None if outcome == "cut" else cut.answer.code or "no_end")

    def _record(self, said: Utterance, answer: Answer | None, outcome: Outcome, code: str | None = None) -> None:
        wall = time.time() - time.monotonic()
        heard: dict[str, Any] = {}
        if answer is not None and (player := answer.playback).first_audio_at is not None:
            heard = {
                "first_audio_s": player.first_audio_s,
                "latency_s": player.first_audio_at - said.ended_at,
                "rtf": player.rtf if outcome == "heard" else None,
                "audio_s": player.audio_s,
                "underruns": player.underruns,
                "underrun_s": player.underrun_s,
                "gap_s": player.longest_gap_s,
                "silence_s": answer.silence_s,
            }
        self._write(
            TurnRecord(
                at=wall + (said.ended_at or time.monotonic()),
                ended_at=time.time(),
                door=self._call.door,
                tenant=self._tenant,
                outcome=outcome,
                code=code,
                slow=self._script.slow,
                late_s=self._call.late_s(),
                **heard,
            )
        )
