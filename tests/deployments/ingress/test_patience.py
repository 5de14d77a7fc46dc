"""Waits that are limited by one timer end as asyncio.timeout ends them."""

import asyncio

import pytest

from deployments.ingress.patience import Patience
from tests.deployments.ingress.scripted import until


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_wait_that_takes_too_long_is_over_and_the_next_is_not() -> None:
    patience = Patience()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await patience.until(soon(0.02), asyncio.Event().wait())
        assert await patience.until(soon(20), asyncio.sleep(0.01, "brought")) == "brought"
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    patience.close()


async def test_the_limit_is_that_of_the_wait_that_runs() -> None:
    patience = Patience()
    await patience.until(soon(0.03), asyncio.sleep(0))
    await patience.until(soon(20), asyncio.sleep(0.1))  # the first one's timer fires meanwhile
    await patience.until(soon(20), asyncio.sleep(0))
    with pytest.raises(TimeoutError):
        await patience.until(soon(0.02), asyncio.Event().wait())  # sooner than the timer that is set
    patience.close()


async def test_time_between_waits_does_not_count() -> None:
    patience = Patience()
    await patience.until(soon(0.02), asyncio.sleep(0))
    await asyncio.sleep(0.1)
    await patience.until(soon(20), asyncio.sleep(0.01))
    patience.close()


async def test_who_is_cancelled_is_cancelled() -> None:
    patience = Patience()
    task = asyncio.create_task(patience.until(soon(20), asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    await until(task.done)
    assert task.cancelled()
    patience.close()


async def test_what_goes_wrong_meanwhile_is_raised() -> None:
    async def fail() -> None:
        raise KeyError

    patience = Patience()
    with pytest.raises(KeyError):
        await patience.until(soon(20), fail())
    patience.close()
