"""Where turns wait for slots, tenants get slots in proportion to their weights, whoever asks most often."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.engine.slots import Rank, SlotPool
from chroma_models.errors import Overloaded
from chroma_models.types import FairShare


async def shares(rows: int, weights: dict[str, float], waiting: dict[str, int], ends: int) -> Counter[str]:
    """Slots that each tenant holds, once so many have been given back and all tenants still wait."""
    pool, held = SlotPool(rows), list[tuple[str, object]]()

    async def ask(name: str) -> None:
        slot = await pool.acquire(f"turn of {name}", 30.0, share=FairShare(name, weights[name]))
        held.append((name, slot))

    tasks = [asyncio.create_task(ask(name)) for name, count in waiting.items() for _ in range(count)]
    await asyncio.sleep(0)
    for number in range(ends):
        await asyncio.sleep(0)
        _, slot = held.pop(number % len(held))
        pool.release(slot)  # type: ignore[arg-type]
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return Counter(name for name, _ in held)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 30))
def test_a_flood_of_one_tenant_takes_no_more_than_its_weight(light: int, heavy: int, ends: int) -> None:
    rows = 2 * (light + heavy)
    weights = {"light": float(light), "heavy": float(heavy)}
    flood = {"light": 300, "heavy": 300}  # the first of them floods an empty pool
    held = asyncio.run(shares(rows, weights, flood, 4 * rows + ends))
    assert sum(held.values()) == rows
    assert abs(held["light"] - 2 * light) <= 1


def test_alone_a_tenant_may_have_everything() -> None:
    assert asyncio.run(shares(8, {"one": 0.1}, {"one": 40}, 3)) == {"one": 8}


def test_rank_comes_before_share() -> None:
    async def run() -> list[str]:
        pool, order = SlotPool(1), list[str]()
        first = await pool.acquire("first", 1.0, share=FairShare("busy"))

        async def ask(name: str, rank: Rank, tenant: str) -> None:
            slot = await pool.acquire(name, 5.0, rank, share=FairShare(tenant))
            order.append(name)
            await asyncio.sleep(0)
            pool.release(slot)

        tasks = [
            asyncio.create_task(ask("fast", Rank.FAST, "idle")),
            asyncio.create_task(ask("live", Rank.REALTIME, "busy")),
            asyncio.create_task(ask("resumed", Rank.RESUMED, "busy")),
        ]
        await asyncio.sleep(0)
        pool.release(first)
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["resumed", "live", "fast"]


def test_who_gave_up_is_passed_over_and_no_row_is_lost() -> None:
    async def run() -> None:
        pool = SlotPool(2)
        slots = [await pool.acquire("a", 1.0, share=FairShare("a")) for _ in range(2)]
        with pytest.raises(Overloaded):
            await pool.acquire("late", 0.01, share=FairShare("b"))
        for slot in slots:
            pool.release(slot)
        again = [await pool.acquire("c", 1.0, share=FairShare("c")) for _ in range(2)]
        assert {slot.row for slot in again} == {0, 1}

    asyncio.run(run())
