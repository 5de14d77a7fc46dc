"""How streams between stages behave: they speak in time or are lost, and whoever opens one closes it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from chroma_models.errors import Lost
from chroma_models.types import FRAMES_PER_S

T = TypeVar("T")


async def lively(
    stream: AsyncGenerator[T, None], stage: str, stall_timeout_s: float, first_timeout_s: float | None = None
) -> AsyncGenerator[T, None]:
    """The stream's items; raises Lost when none comes for stall_timeout_s. Closes the stream at its end.

    first_timeout_s allows the first item, Admitted, to take longer.
    """
    timeout_s = first_timeout_s or stall_timeout_s
    async with aclosing(stream) as items:
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise Lost(f"The {stage} said nothing for {timeout_s:g} s.", 1.0) from error
            yield item
            timeout_s = stall_timeout_s


THIN_S = 0.24  # a lead that one late step could use up: nothing of it is spent on making lists longer
LONGEST_GAP_S = 0.5  # between two lists of a stream that is well ahead: messages, not bytes, are what a hop costs


class Lead:
    """How far what was sent is ahead of a listener who plays from the first frame on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at: float | None = None
        self._sent_at = 0.0
        self._frames = 0

    def sent(self, frames: int) -> None:
        self._sent_at = self._clock()
        if self._started_at is None:
            self._started_at = self._sent_at
        self._frames += frames

    @property
    def lead_s(self) -> float:
        """0 before the first frame."""
        if self._started_at is None:
            return 0.0
        return self._frames / FRAMES_PER_S - (self._clock() - self._started_at)

    @property
    def since_s(self) -> float:
        """Since the last list."""
        return self._clock() - self._sent_at


class ItemPacer(Lead):
    """When the next list of frames should leave: at once while the lead is thin, then at most twice a second.

    The first frame leaves alone and at once. After that the listener has as much in hand as was sent and not yet
    played; half of it may pass before the next list, so lists grow as the lead does.
    """

    def hold_s(self) -> float:
        """Seconds to let frames gather before the next list. Half of the lead beyond THIN_S is spent at most."""
        return min(LONGEST_GAP_S, max(0.0, self.lead_s - THIN_S) / 2) - self.since_s
