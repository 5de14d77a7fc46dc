"""What ends requests ends each once: who cancels one again is heard."""

import asyncio

import pytest

from deployments.ingress.health import Health


async def test_a_request_that_is_cut_may_say_so_and_can_still_be_cancelled() -> None:
    health, words = Health(), list[str]()

    async def request() -> None:
        with health.request():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not health.uncancel():
                    raise
                words.append("shutting down")
                try:
                    await asyncio.sleep(60)  # nobody reads it
                except asyncio.CancelledError:
                    assert not health.uncancel()
                    raise

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    assert health.live == 1
    health.cut()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert words == ["shutting down"]
    assert task.cancelling() == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert health.live == 0
    await health.idle()


async def test_a_request_that_others_cancel_was_not_cut() -> None:
    health = Health()

    async def request() -> bool:
        with health.request():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return health.uncancel()
        return True

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    task.cancel()
    assert await task is False
