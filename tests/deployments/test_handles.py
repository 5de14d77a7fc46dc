"""What a stage hears when a call to another one ends badly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chroma_models.errors import InvalidVoice, Overloaded, StageUnavailable
from deployments.handles import streamed, unary


class Response:
    """A Serve response that gives one item and then raises; knows whether it was cancelled."""

    def __init__(self, error: BaseException | None) -> None:
        self.error, self.cancelled = error, False

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "item"
        if self.error is None:
            await asyncio.Event().wait()
        else:
            raise self.error

    def cancel(self) -> None:
        self.cancelled = True


async def test_a_call_cancelled_on_the_other_side_is_a_lost_stage_and_no_hang_up() -> None:
    """Serve's gRPC transport raises the replica's CancelledError at the caller."""
    response = Response(asyncio.CancelledError())
    stream = streamed(lambda: response, "Backbone")
    assert await anext(stream) == "item"
    with pytest.raises(StageUnavailable):
        await anext(stream)
    assert response.cancelled

    async def call() -> None:
        raise asyncio.CancelledError

    with pytest.raises(StageUnavailable):
        await unary(call, "Codec")


async def test_a_cancel_of_ones_own_stays_a_cancel() -> None:
    response = Response(None)

    async def read() -> None:
        async for _ in streamed(lambda: response, "Backbone"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert response.cancelled


@pytest.mark.parametrize("error", [InvalidVoice("No.", "voice"), Overloaded("Full.", 2.5)])
async def test_typed_errors_pass_as_they_are(error: Exception) -> None:
    stream = streamed(lambda: Response(error), "Backbone")
    await anext(stream)
    with pytest.raises(type(error)) as caught:
        await anext(stream)
    assert caught.value is error
