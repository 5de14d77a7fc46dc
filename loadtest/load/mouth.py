"""A microphone of a caller: silence and speech, piece after piece at the pace of speech, in a thread of its own."""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loadtest.microphone import Utterance
from loadtest.playback import RATE_HZ


class Mouth:
    """send is called with int16 samples of piece_s each, silence included, until it raises OSError or close()."""

    def __init__(self, send: Callable[[NDArray[np.int16]], None], piece_s: float = 0.08) -> None:
        self._send, self._piece = send, round(piece_s * RATE_HZ)
        self._silence = np.zeros(self._piece, np.int16)
        self._speaking: Utterance | None = None
        self._closed = threading.Event()
        self.late_s = 0.0  # the longest that a piece was sent after its time, since it was last looked at

    def open(self) -> None:
        threading.Thread(target=self._run, name="microphone", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def say(self, samples: NDArray[np.int16]) -> Utterance:
        """Begins with the next piece."""
        utterance = self._speaking = Utterance(samples)
        return utterance

    def _run(self) -> None:
        began, count = time.monotonic(), 0
        while not self._closed.is_set():
            heard_from = began + count * self._piece / RATE_HZ
            sent_at = heard_from + self._piece / RATE_HZ
            time.sleep(max(0.0, sent_at - time.monotonic()))
            self.late_s = max(self.late_s, time.monotonic() - sent_at)
            try:
                self._send(self._next(heard_from))
            except OSError:  # the connection's reader knows why
                return
            count += 1

    def _next(self, heard_from: float) -> NDArray[np.int16]:
        speaking = self._speaking
        if speaking is None:
            return self._silence
        piece = speaking.next(self._piece, heard_from)
        if speaking.ended.is_set() and self._speaking is speaking:
            self._speaking = None
        return np.pad(piece, (0, self._piece - len(piece)))
