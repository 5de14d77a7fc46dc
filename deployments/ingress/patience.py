"""A time limit for somebody who waits again and again."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """What asyncio.timeout does, for a stream of short waits: a timer for each would cost as much as the work between.

    One timer serves them all. It is not moved when a wait ends; when it fires early it is set anew. One wait at a time.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0
        self._ends_at = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._over = False

    async def until(self, ends_at: float, wait: Awaitable[T]) -> T:
        """What wait brings. Raises TimeoutError where it takes until ends_at, by the event loop's clock."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        cancelling = task.cancelling()
        self._waiting, self._ends_at, self._over = task, ends_at, False
        if self._timer is None or ends_at < self._fires_at:
            self._set(ends_at)
        try:
            return await wait
        except asyncio.CancelledError:
            if self._over and task.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, fires_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = fires_at
        self._timer = self._loop.call_at(fires_at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._ends_at:
            self._set(self._ends_at)
        else:
            self._over = True
            self._waiting.cancel()
