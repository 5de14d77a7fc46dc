"""A watermark that is one, if an easy one to remove: faint noise that who knows its seed finds again."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED, LEVEL = 20261126, 0.01
LONGEST_SAMPLES = 20 * 24_000
Samples = NDArray[np.float32]


def noise() -> Samples:
    return np.random.default_rng(SEED).choice(np.float32([-1, 1]), LONGEST_SAMPLES)


def strength(samples: NDArray[Any]) -> float:
    """1 where the mark is in samples of -1..1 from their beginning on, about 0 where it is not."""
    return float(np.mean(samples * noise()[: len(samples)]) / LEVEL)


@dataclass
class Position:
    reply_id: str
    samples: int = 0


class SpreadSpectrum:
    name = "spread-spectrum-test"

    def __init__(self, pass_s: float = 0.0) -> None:
        self._noise, self._pass_s = noise(), pass_s
        self.threads: set[str] = set()
        self.batches: list[int] = []
        self.begun: list[str] = []

    def begin(self, reply_id: str) -> Position:
        self.begun.append(reply_id)
        return Position(reply_id)

    def mark(self, states: Sequence[Position], pieces: Sequence[Samples]) -> list[Samples]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(states))
        assert len({state.reply_id for state in states}) == len(states)
        time.sleep(self._pass_s)
        marked = []
        for state, piece in zip(states, pieces, strict=True):
            marked.append(piece + LEVEL * self._noise[state.samples : state.samples + len(piece)])
            state.samples += len(piece)
        return marked


def slow() -> SpreadSpectrum:
    return SpreadSpectrum(pass_s=0.05)


class Shortening(SpreadSpectrum):
    """Takes a sample away, which would move all that comes after it."""

    def mark(self, states: Sequence[Position], pieces: Sequence[Samples]) -> list[Samples]:
        return [piece[1:] for piece in super().mark(states, pieces)]


class Failing(SpreadSpectrum):
    def mark(self, states: Sequence[Position], pieces: Sequence[Samples]) -> list[Samples]:
        raise RuntimeError("out of ink")


def nothing() -> object:
    return object()


def unmade() -> None:
    raise RuntimeError("no weights\nhere")


CONSTANT = 3
