"""One connection of one caller, whatever the protocol."""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from loadtest.load.behaviour import PACE
from loadtest.load.ear import Ear
from loadtest.microphone import Utterance
from loadtest.playback import RATE_HZ


class Refused(Exception):
    """The server did not take the connection. args: a code."""

    @property
    def code(self) -> str:
        return str(self.args[0])


class Call(Protocol):
    """door names the protocol. Reading goes on in a thread of its own, into the ear."""

    door: str
    ear: Ear

    def open(self) -> None:
        """Raises Refused."""

    def say(self, samples: NDArray[np.int16]) -> Utterance:
        """Begins to speak; the answer comes by itself."""

    def cancel(self) -> None:
        """Asks for silence, by a message or by leaving the request."""

    def hang_up(self) -> None:
        """Goes without a word."""

    def close(self) -> None: ...

    def late_s(self) -> float:
        """How late the microphone was at most since this was last asked."""


@dataclass(frozen=True)
class Line:
    """What a call needs to know. url: http://HOST:PORT, grpc: HOST:PORT."""

    url: str
    grpc: str
    key: str
    reply_s: float
    slow: bool
    seed: int

    def dawdle(self, pcm_bytes: int) -> None:
        """A slow reader takes its time over what it was just given."""
        if self.slow:
            time.sleep(pcm_bytes / 2 / RATE_HZ / PACE)
