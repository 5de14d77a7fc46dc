"""Where a turn's frames wait to be fetched."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from chroma_models.engine.slots import Slot
from chroma_models.errors import TurnTimeout
from chroma_models.types import Finished, Frame


class Outbox:
    """Frames made since the last fetch. Lives in the event loop; the engine puts, one reader takes.

    A reader that lets more than limit_frames lie for stall_timeout_s is given up: its next fetch raises TurnTimeout,
    and on_overflow, if set, is called so that the slot need not wait for that fetch.
    """

    def __init__(self, slot: Slot, limit_frames: int, stall_timeout_s: float) -> None:
        self.slot = slot
        self._limit_frames, self._stall_timeout_s = limit_frames, stall_timeout_s
        self._frames: list[Frame] = []
        self._end: Finished | Exception | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._over_since: float | None = None
        self.on_overflow: Callable[[], None] | None = None

    def put(self, item: Frame | Finished | Exception) -> None:
        if self._end is None:
            if isinstance(item, Frame):
                self._frames.append(item)
                self._watch()
            else:
                self._end = item
                self._ended.set()
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, unless it has ended already. Frames already made are still delivered."""
        self.put(error)

    def _watch(self) -> None:
        if len(self._frames) <= self._limit_frames:
            self._over_since = None
            return
        now = time.monotonic()
        self._over_since = self._over_since or now
        if now - self._over_since > self._stall_timeout_s:
            self._end = TurnTimeout("The reply was not read for too long.")
            self._frames.clear()
            self._ended.set()
            if self.on_overflow is not None:
                self.on_overflow()

    async def settle(self, timeout_s: float) -> None:
        """Let frames gather for a while; returns early when the turn has ended."""
        if timeout_s > 0 and not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._ended.wait()

    async def take(self, timeout_s: float) -> list[Frame] | Finished:
        """Everything since the last take; an empty list after timeout_s of nothing. Raises what ended the turn."""
        if not self._frames and self._end is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                return []
        if self._frames:
            frames, self._frames = self._frames, []
            self._over_since = None
            return frames
        if isinstance(self._end, Finished):
            return self._end
        if self._end is not None:
            raise self._end
        return []
