"""Rows of engine state and who owns them."""

import asyncio
from collections import deque
from dataclasses import dataclass

from chroma_models.errors import Overloaded


@dataclass(frozen=True, eq=False)
class Slot:
    """A row of engine state plus its owner. Compared by identity: a reused row is a different slot."""

    row: int
    turn_id: str


class SlotPool:
    """Hands out rows, lowest first, to turns in order of arrival. Used from one event loop."""

    def __init__(self, rows: int) -> None:
        self._free = sorted(range(rows), reverse=True)
        self._waiting: deque[asyncio.Future[int]] = deque()
        self.held: dict[int, Slot] = {}

    async def acquire(self, turn_id: str, timeout_s: float) -> Slot:
        """Wait for a row. Raises Overloaded after timeout_s."""
        if self._free and not self._waiting:
            return self._hold(self._free.pop(), turn_id)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout_s):
                row = await future
        except BaseException as error:
            if future.done() and not future.cancelled():  # granted in the moment we gave up: pass it on
                self._offer(future.result())
            elif future in self._waiting:
                self._waiting.remove(future)
            if isinstance(error, TimeoutError):
                raise Overloaded(f"No slot became free within {timeout_s:g} s.", timeout_s) from error
            raise
        return self._hold(row, turn_id)

    def _hold(self, row: int, turn_id: str) -> Slot:
        slot = Slot(row, turn_id)
        self.held[row] = slot
        return slot

    def release(self, slot: Slot) -> None:
        """Give the row back, once; a second call, or one for an earlier owner, does nothing."""
        if self.held.get(slot.row) is not slot:
            return
        del self.held[slot.row]
        self._offer(slot.row)

    def _offer(self, row: int) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(row)
                return
        self._free.append(row)
        self._free.sort(reverse=True)
