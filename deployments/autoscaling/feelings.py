"""What the listeners of one replica feel, as it tells the autoscaler (slack.Felt has the names)."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from chroma_models.errors import Overloaded
from chroma_models.interleave import FRAMES_PER_PAIR
from chroma_models.stages.streams import Lead
from chroma_models.types import Admitted, AudioChunk, TextStep, Turn
from deployments.autoscaling.slack import AT_EASE_S

T = TypeVar("T")
SETTLES_S = 3.0  # from the first frame; until then a lead is thin, however fast the stage is


class Feelings:
    """Watches the turns that pass through turn().

    slots   for new turns; 0 where the stage has none
    held    slots that turns hold now
    load    share of real time that the stage's work takes, or
    busy_s  seconds that it has worked so far, of which the share is made
    """

    def __init__(
        self,
        slots: int,
        held: Callable[[], int],
        load: Callable[[], float] | None = None,
        busy_s: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots, self._held, self._load, self._busy_s, self._clock = slots, held, load, busy_s, clock
        self._leads: dict[Lead, float] = {}  # of turns that are heard: since when
        self._admit_wait_s, self._refused = 0.0, 0
        self._told_at, self._busy_then_s = clock(), busy_s() if busy_s else 0.0

    async def turn(self, turn: Turn, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Pass a turn's stream through. Nobody waits for work at full speed, so it is not felt."""
        if turn.pace != "realtime":
            async with aclosing(stream) as items:
                async for item in items:
                    yield item
            return
        began, lead = self._clock(), Lead(self._clock)
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    if isinstance(item, Admitted):
                        self._admit_wait_s = max(self._admit_wait_s, self._clock() - began)
                    elif frames := _frames(item):
                        lead.sent(frames)
                        self._leads.setdefault(lead, self._clock())
                    yield item
        except Overloaded:
            self._refused += 1
            raise
        finally:
            self._leads.pop(lead, None)

    def told(self) -> dict[str, float]:
        """Waits and refusals are those since the last time."""
        now = self._clock()
        settled = [lead.lead_s for lead, since in self._leads.items() if now - since >= SETTLES_S]
        told = {
            "slots": float(self._slots),
            "slots_held": float(self._held()),
            "load": self._share(now),
            "lead_s": min([AT_EASE_S, *settled]),
            "admit_wait_s": self._admit_wait_s,
            "refused": float(self._refused),
        }
        self._admit_wait_s, self._refused, self._told_at = 0.0, 0, now
        return told

    def _share(self, now: float) -> float:
        if self._load is not None:
            return self._load()
        if self._busy_s is None or now <= self._told_at:
            return 0.0
        before, self._busy_then_s = self._busy_then_s, self._busy_s()
        return (self._busy_then_s - before) / (now - self._told_at)


def _frames(item: Any) -> int:
    """Of speech that it is worth; a keep-alive is worth none."""
    if isinstance(item, AudioChunk):
        return len(item.frames)
    if isinstance(item, list) and item:
        return len(item) * (FRAMES_PER_PAIR if isinstance(item[0], TextStep) else 1)
    return 0
