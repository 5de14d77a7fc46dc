"""One spoken conversation: a question, an interruption of its answer, and the answer to that, heard to its end.

Imported by the scripts beside it, each in its client's own environment: standard library only.
"""

import asyncio
import json
import sys
import time
import wave
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RATE_HZ = 24_000
PIECE_S = 0.02
PIECE_BYTES = int(RATE_HZ * PIECE_S) * 2  # int16 mono
HEARD_S = 0.4  # of an answer, before the user interrupts it
LEAST_ANSWER_S = 1.0
LATE_S = 0.25  # of the first answer, already under way inside the client when the interruption was told
PATIENCE_S = 60.0  # for each step, on a busy machine
SPEECH = Path(__file__).with_name("speech")


class Microphone:
    """Speech where there is any, silence otherwise: 20 ms at a time, at the pace of speech, while it is read."""

    def __init__(self) -> None:
        self._speech = b""

    def say(self, clip: str) -> None:
        with wave.open(str(SPEECH / f"{clip}.wav")) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE_HZ, 2, 1), clip
            self._speech += file.readframes(file.getnframes())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        due = time.monotonic()
        while True:
            piece, self._speech = self._speech[:PIECE_BYTES], self._speech[PIECE_BYTES:]
            yield piece.ljust(PIECE_BYTES, b"\0")
            due += PIECE_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))


@dataclass
class Reply:
    """One answer, as the client tells of it."""

    audio_s: float = 0.0
    words: str = ""
    ended: str | None = None  # how, in the client's words


@dataclass
class Conversation:
    """What the client's user hears and is told. Scripts report to it; hold() speaks, waits and checks."""

    microphone: Microphone = field(default_factory=Microphone)
    replies: list[Reply] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    interrupted: int = 0

    def begins(self) -> None:
        self.replies.append(Reply())

    def hears(self, pcm: bytes) -> None:
        self.replies[-1].audio_s += len(pcm) / 2 / RATE_HZ

    def reads(self, words: str) -> None:
        self.replies[-1].words += words

    def ends(self, how: str) -> None:
        self.replies[-1].ended = how

    def is_interrupted(self) -> None:
        self.interrupted += 1

    async def hold(self, *running: Coroutine[Any, Any, None], finished: set[str], cut_short: str) -> dict[str, str]:
        """What to show of each step. running: what moves the client meanwhile; it is cancelled afterwards.

        finished and cut_short: how the client says that an answer ended by itself, or was interrupted.
        Raises AssertionError with all that was heard.
        """
        tasks = [asyncio.create_task(each) for each in running]
        self.microphone.say("question")
        await self._until(lambda: bool(self.replies) and self.replies[0].audio_s >= HEARD_S, "the first answer", tasks)
        first = self.replies[0]
        self._check(first.ended is None, "an answer to be interrupted while it is made")
        self.microphone.say("interruption")
        spoke_at = time.monotonic()
        await self._until(lambda: self.interrupted == 1, "the interruption", tasks)
        took_s, heard_s = time.monotonic() - spoke_at, first.audio_s
        await self._until(lambda: len(self.replies) == 2 and self.replies[1].ended is not None, "the second end", tasks)
        second = self.replies[1]
        self._check(first.ended == cut_short, "the first answer to be cut short")
        self._check(first.audio_s - heard_s <= LATE_S, f"no more of the first answer than {heard_s:.2f} s")
        self._check(second.ended in finished, "the second answer to be finished")
        self._check(second.audio_s >= LEAST_ANSWER_S, "a second answer of some length")
        self._check(bool(first.words and second.words), "the words of both answers")
        self._check(self.interrupted == 1, "one interruption")
        for task in tasks:
            task.cancel()
        return {
            "turn_1": f"{first.audio_s:.1f} s, {first.ended}",
            "barge_in": f"{1000 * took_s:.0f} ms",
            "turn_2": f"{second.audio_s:.1f} s, {second.ended}",
        }

    async def _until(self, happened: Callable[[], bool], what: str, tasks: "list[asyncio.Task[None]]") -> None:
        ends_at = time.monotonic() + PATIENCE_S
        while not happened():
            for task in tasks:
                if task.done():
                    task.result()
            self._check(not self.errors, "no error")
            self._check(time.monotonic() < ends_at, f"{what} within {PATIENCE_S:g} s")
            await asyncio.sleep(0.01)

    def _check(self, holds: bool, wanted: str) -> None:
        assert holds, f"wanted {wanted}; replies {self.replies}, interrupted {self.interrupted}, errors {self.errors}"


def report(version: str, conversation: Coroutine[Any, Any, dict[str, str]]) -> None:
    """Run a script's conversation; its steps are the last line said, for the runner. A failure is a traceback."""
    steps = asyncio.run(conversation)
    sys.stdout.write("\n" + json.dumps({"version": version, **steps}) + "\n")
