"""Codes of voices' clips, remembered while somebody speaks with them."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass
class _Kept:
    making: asyncio.Task[bytes]
    used_s: float  # by the clock


class ClipCodes:
    """By the clips' content. The most recently used are kept, and none for longer than idle_s after its last use."""

    def __init__(self, most: int, idle_s: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._idle_s, self._clock = most, idle_s, clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # the longest unused first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: bytes, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """What make() gives, made once for all who ask at once. Raises what it raises, and remembers no failure."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(self._making(key, make()), 0.0)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        kept.used_s = self._clock()
        self._kept.move_to_end(key)
        self.expire()
        return await asyncio.shield(kept.making)

    def expire(self) -> None:
        """Let go of what nobody has used for idle_s, and come back for the next."""
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).used_s <= now - self._idle_s:
            self._kept.popitem(last=False)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._kept and math.isfinite(self._idle_s):
            after_s = next(iter(self._kept.values())).used_s + self._idle_s - now
            self._timer = asyncio.get_running_loop().call_later(after_s, self.expire)

    def close(self) -> None:
        self._kept.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _making(self, key: bytes, work: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
        """In a task of its own, so that a client that hangs up takes nobody's voice away."""
        task = asyncio.create_task(work)
        task.add_done_callback(partial(self._forget_failure, key))
        return task

    def _forget_failure(self, key: bytes, task: asyncio.Task[bytes]) -> None:
        kept = self._kept.get(key)
        if (task.cancelled() or task.exception()) and kept is not None and kept.making is task:
            del self._kept[key]
