"""Whatever order turns come, give up and leave in: a row has one owner, nobody waits while a row is theirs to take."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chroma_models.engine.slots import Rank, Slot, SlotPool
from chroma_models.errors import Overloaded

FOREVER_S, AT_ONCE_S = 3600.0, 0.0
RANKS = st.sampled_from(Rank)


class AnyTurns(RuleBasedStateMachine):
    """A pool against a count of who holds what; the loop turns only where a rule lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.waiting: dict[asyncio.Task[Slot], Rank] = {}
        self.running: list[tuple[Slot, Rank]] = []
        self.former: list[Slot] = []
        self.named = 0
        self.willing = True

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    @initialize(rows=st.integers(1, 5), reserved=st.integers(0, 2))
    def begin(self, rows: int, reserved: int) -> None:
        self.rows, self.reserved = rows, min(reserved, rows - 1)
        self.pool = SlotPool(self.rows, self.reserved)

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        for task, rank in list(self.waiting.items()):
            if not task.done():
                continue
            del self.waiting[task]
            if not task.cancelled() and task.exception() is None:
                self.running.append((task.result(), rank))
            elif not task.cancelled():
                assert isinstance(task.exception(), Overloaded)

    @rule(rank=RANKS, patient=st.booleans(), settled=st.booleans())
    def comes(self, rank: Rank, patient: bool, settled: bool) -> None:
        async def came() -> None:
            self.named += 1
            timeout_s = FOREVER_S if patient else AT_ONCE_S
            work = self.pool.acquire(f"turn {self.named}", timeout_s, rank, lambda: self.willing)
            self.waiting[self.loop.create_task(work)] = rank
            if settled:
                await self.settle()

        self.run(came())

    @rule(pick=st.integers(0, 9), settled=st.booleans())
    def gives_up(self, pick: int, settled: bool) -> None:
        async def gave_up() -> None:
            if self.waiting:
                list(self.waiting)[pick % len(self.waiting)].cancel()
            if settled:
                await self.settle()

        self.run(gave_up())

    @rule(pick=st.integers(0, 9), twice=st.booleans(), settled=st.booleans())
    def leaves(self, pick: int, twice: bool, settled: bool) -> None:
        async def left() -> None:
            if self.running:
                slot, _ = self.running.pop(pick % len(self.running))
                self.former.append(slot)
                self.pool.release(slot)
                if twice:
                    self.pool.release(slot)
            if settled:
                await self.settle()

        self.run(left())

    @rule(pick=st.integers(0, 99))
    def comes_back_late(self, pick: int) -> None:
        """A former owner's second release takes nothing from the present one."""
        held = dict(self.pool.held)
        if self.former:
            self.pool.release(self.former[pick % len(self.former)])
        assert self.pool.held == held

    @rule(willing=st.booleans())
    def forecast_changes(self, willing: bool) -> None:
        self.willing = willing

    @rule()
    def time_passes(self) -> None:
        self.run(self.settle())

    @invariant()
    def every_row_has_one_owner(self) -> None:
        if not hasattr(self, "pool"):
            return
        for slot, _ in self.running:
            assert self.pool.held[slot.row] is slot
        assert len({slot.row for slot, _ in self.running}) == len(self.running)
        assert all(0 <= row < self.rows for row in self.pool.held)

    @invariant()
    def reserved_rows_are_for_resumed_turns(self) -> None:
        if hasattr(self, "pool"):
            others = sum(rank is not Rank.RESUMED for _, rank in self.running)
            assert others <= self.rows - self.reserved

    def teardown(self) -> None:
        async def ended() -> None:
            """Once all have left, the pool gives every row out again."""
            self.willing = True
            for task in self.waiting:
                task.cancel()
            await asyncio.wait(self.waiting) if self.waiting else None
            await self.settle()
            for slot, _ in self.running:
                self.pool.release(slot)
            assert not self.pool.held
            again = [await self.pool.acquire(f"new {i}", AT_ONCE_S, Rank.RESUMED) for i in range(self.rows)]
            assert sorted(slot.row for slot in again) == list(range(self.rows))

        if hasattr(self, "pool"):
            self.run(ended())
        self.loop.close()


TestAnyTurns = AnyTurns.TestCase
TestAnyTurns.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
