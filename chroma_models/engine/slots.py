"""Rows of engine state and who owns them."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from chroma_models.errors import Overloaded
from chroma_models.types import ONE_SHARE, FairShare


@dataclass(frozen=True, eq=False)
class Slot:
    """A row of engine state plus its owner. Compared by identity: a reused row is a different slot."""

    row: int
    turn_id: str


class Rank(IntEnum):
    """Who goes first where several wait for a slot; in order of arrival within a rank."""

    RESUMED = 0
    REALTIME = 1
    FAST = 2


@dataclass(eq=False)
class _Waiting:
    turn_id: str
    rank: Rank
    share: FairShare
    claim: Callable[[], bool]
    granted: "asyncio.Future[Slot]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SlotPool:
    """Hands out rows, lowest first. Used from one event loop.

    reserved  of the rows are for resumed turns alone
    """

    def __init__(self, rows: int, reserved: int = 0) -> None:
        self._rows, self._reserved = rows, reserved
        self._free = sorted(range(rows), reverse=True)
        self._waiting: dict[Rank, deque[_Waiting]] = {rank: deque() for rank in Rank}
        self._resumed: set[int] = set()  # rows held by resumed turns
        self._shares: dict[int, str] = {}  # tenant's key, by row
        self._rows_of: Counter[str] = Counter()  # held, by tenant's key
        self.held: dict[int, Slot] = {}

    async def acquire(
        self,
        turn_id: str,
        timeout_s: float,
        rank: Rank = Rank.REALTIME,
        claim: Callable[[], bool] = lambda: True,
        share: FairShare = ONE_SHARE,
    ) -> Slot:
        """Wait for a row. Raises Overloaded after timeout_s.

        share  of those of a rank who wait, the one goes first whose tenant holds the fewest rows for its weight
        claim  asked when a row could be had, at first and whenever one is given back; True takes it
        """
        waiting = _Waiting(turn_id, rank, share, claim)
        self._waiting[rank].append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.granted
        except BaseException as error:
            if waiting in self._waiting[rank]:
                self._waiting[rank].remove(waiting)
            elif waiting.granted.done() and not waiting.granted.cancelled():  # in the moment we gave up: pass it on
                self.release(waiting.granted.result())
            if isinstance(error, TimeoutError):
                raise Overloaded(f"No slot became free within {timeout_s:g} s.", timeout_s) from error
            raise

    def release(self, slot: Slot) -> None:
        """Give the row back, once; a second call, or one for an earlier owner, does nothing."""
        if self.held.get(slot.row) is not slot:
            return
        del self.held[slot.row]
        self._rows_of[self._shares.pop(slot.row)] -= 1
        self._rows_of = +self._rows_of  # forgets who holds none
        self._resumed.discard(slot.row)
        self._free.append(slot.row)
        self._free.sort(reverse=True)
        self._grant()

    def _grant(self) -> None:
        """Rows to whoever may have one. A granted row is held at once, before its owner wakes."""
        for rank, queue in self._waiting.items():
            while queue and self._open_to(rank):
                waiting = min(queue, key=self._rows_for_weight)  # the first of equals came first
                if waiting.granted.done():  # its owner gave up and has not woken yet
                    queue.remove(waiting)
                    continue
                if not waiting.claim():
                    break
                queue.remove(waiting)
                slot = Slot(self._free.pop(), waiting.turn_id)
                self.held[slot.row] = slot
                self._shares[slot.row] = waiting.share.key
                self._rows_of[waiting.share.key] += 1
                if rank is Rank.RESUMED:
                    self._resumed.add(slot.row)
                waiting.granted.set_result(slot)

    def _rows_for_weight(self, waiting: _Waiting) -> float:
        return self._rows_of[waiting.share.key] / waiting.share.weight

    def _open_to(self, rank: Rank) -> bool:
        if not self._free or rank is Rank.RESUMED:
            return bool(self._free)
        beyond_reserve = len(self.held) - min(len(self._resumed), self._reserved)
        return beyond_reserve < self._rows - self._reserved
