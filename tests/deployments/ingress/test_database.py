"""Who is cancelled in the middle of a statement takes nothing along that others need."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from chroma_models.errors import StageUnavailable
from deployments.ingress.store.database import Database


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    opened = Database(database, 5.0)
    await opened.open()
    async with opened.session() as session:
        await session.execute(text("CREATE TABLE marks (mark INTEGER)"))
    yield opened
    await opened.close()


async def mark(database: Database, number: int) -> None:
    async with database.session() as session:
        await session.execute(text(f"INSERT INTO marks VALUES ({number})"))
        await session.execute(text("SELECT count(*) FROM marks"))


async def count(database: Database) -> int:
    async with database.session() as session:
        return int(await session.scalar(text("SELECT count(*) FROM marks")) or 0)


async def test_the_cancelled_hold_no_lock(opened: Database) -> None:
    gc.disable()  # a lock that only the garbage collector gives back is held for as long as it likes
    try:
        done = 0
        for number in range(40):
            writers = [asyncio.create_task(mark(opened, number)) for _ in range(12)]
            await asyncio.sleep(0.0005 * (number % 8))
            for writer in writers[::3]:
                writer.cancel()
            results = await asyncio.gather(*writers, return_exceptions=True)
            assert not any(isinstance(each, StageUnavailable) for each in results), f"after {number} were cancelled"
            done += results.count(None)
        assert 320 <= done <= await count(opened) <= 480  # whose transaction ends already is cancelled too late
    finally:
        gc.enable()


async def test_a_statement_that_fails_with_nobody_waiting_harms_nobody(opened: Database) -> None:
    async def wrong() -> None:
        async with opened.session() as session:
            await session.execute(text("INSERT INTO nowhere VALUES (1)"))

    for wait_ms in range(8):
        task = asyncio.create_task(wrong())
        await asyncio.sleep(0.0005 * wait_ms)
        task.cancel()
        await asyncio.wait({task})
        await mark(opened, wait_ms)
    assert await count(opened) == 8
