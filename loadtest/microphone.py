"""A microphone: silence, and what is to be said, piece after piece at the pace of speech."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from loadtest.listener import Question
from loadtest.playback import RATE_HZ

LOUD = 0.01  # of full scale: speech, not breath


@dataclass
class Utterance:
    """Something said. Times are seconds on the clock of the program, once they have come."""

    samples: NDArray[np.int16]
    began_at: float | None = None  # its first loud sample was heard by the microphone
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0  # its last loud sample was
    _sent: int = 0

    def __post_init__(self) -> None:
        loud = np.flatnonzero(np.abs(self.samples.astype(np.int32)) > LOUD * 32768)
        self._first, self._last = (int(loud[0]), int(loud[-1])) if len(loud) else (0, len(self.samples) - 1)

    def next(self, samples: int, heard_from: float) -> NDArray[np.int16]:
        """The next piece, the first sample of which is heard at heard_from."""
        start, self._sent = self._sent, min(self._sent + samples, len(self.samples))
        if self.began_at is None and self._first < self._sent:
            self.began_at = heard_from + (self._first - start) / RATE_HZ
        if self._sent == len(self.samples):
            self.ended_at = heard_from + (self._last - start) / RATE_HZ
            self.ended.set()
        return self.samples[start : self._sent]


def recording(path: Path) -> NDArray[np.int16]:
    """A recording as int16 samples at RATE_HZ."""
    question = Question.read(path)
    floats = soxr.resample(question.samples.astype(np.float32), question.rate_hz, RATE_HZ)
    samples: NDArray[np.int16] = np.clip(np.rint(floats), -32768, 32767).astype(np.int16)
    return samples


class Microphone:
    """Sends input_audio_buffer.append events of piece_s each."""

    def __init__(self, send: Callable[[str], Awaitable[None]], piece_s: float) -> None:
        self._send, self._piece = send, round(piece_s * RATE_HZ)
        self._silence = _append(np.zeros(self._piece, np.int16))
        self._speaking: Utterance | None = None
        self.late_s = 0.0  # the longest that a piece was sent after its time

    def say(self, samples: NDArray[np.int16]) -> Utterance:
        """Begins with the next piece."""
        self._speaking = Utterance(samples)
        return self._speaking

    async def run(self) -> None:
        """Until cancelled."""
        began, count = time.monotonic(), 0
        while True:
            heard_from = began + count * self._piece / RATE_HZ
            sent_at = heard_from + self._piece / RATE_HZ
            await asyncio.sleep(sent_at - time.monotonic())
            self.late_s = max(self.late_s, time.monotonic() - sent_at)
            await self._send(self._next(heard_from))
            count += 1

    def _next(self, heard_from: float) -> str:
        if self._speaking is None:
            return self._silence
        piece = self._speaking.next(self._piece, heard_from)
        if self._speaking.ended.is_set():
            self._speaking = None
        return _append(np.pad(piece, (0, self._piece - len(piece))))


def _append(samples: NDArray[np.int16]) -> str:
    audio = base64.b64encode(samples.tobytes()).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})
