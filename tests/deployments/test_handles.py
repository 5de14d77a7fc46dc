"""What a stage hears when a call to another one ends badly."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import torch
from ray.exceptions import RayActorError

from chroma_models.engine.decoder_engine import DecoderBatch
from chroma_models.errors import InvalidVoice, Lost, Overloaded, StageUnavailable
from chroma_models.sampling import RowSampling
from chroma_models.types import Sampling
from deployments import handles
from deployments.handles import streamed, unary

SAMPLING = RowSampling.of([Sampling(seed=0)], [0], torch.device("cpu"))


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
    with pytest.raises(Lost):
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


class Decoders:
    """Replicas in the order a router would pick them, as a handle: a Lost one raises, a hanging one never answers."""

    def __init__(self, *kinds: str) -> None:
        self.kinds, self.asked, self.running = list(kinds), 0, 0
        self.complete = self

    async def remote(self, batch: DecoderBatch, traces: tuple[str, ...]) -> bytes:
        kind = self.kinds.pop(0) if self.kinds else "well"
        self.asked += 1
        self.running += 1
        try:
            if kind == "dead":
                raise RayActorError
            if kind == "hangs":
                await asyncio.Event().wait()
            if kind == "wrong":
                raise InvalidVoice("No.", "voice")
            return torch.arange(8, dtype=torch.int16).numpy().tobytes()
        finally:
            self.running -= 1


@pytest.mark.parametrize(
    "kinds", [(), ("dead",), ("hangs",), ("dead", "dead", "dead"), ("hangs", "dead", "hangs"), ("dead", "hangs")]
)
async def test_a_step_outlives_the_decoders_that_are_lost_in_it(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "HEDGE_S", 0.1)
    decoders = Decoders(*kinds)
    decoder = handles.RemoteDecoder(decoders, asyncio.get_running_loop())  # type: ignore[arg-type]
    asked = await asyncio.to_thread(decoder.complete, torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), SAMPLING)
    assert (await asyncio.wrap_future(asked)).tolist() == [list(range(8))]
    assert decoders.asked == len(kinds) + 1
    assert decoders.running == 0


async def test_without_a_decoder_a_step_fails_in_time_and_a_refusal_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handles, "HEDGE_S", 0.05)
    for kinds, expected, calls in (
        (["dead"] * 20, StageUnavailable, 1 + handles.HEDGES),
        (["hangs"] * 20, StageUnavailable, 1 + handles.HEDGES),
        (["wrong"] * 20, InvalidVoice, 1),
    ):
        decoders = Decoders(*kinds)
        decoder = handles.RemoteDecoder(decoders, asyncio.get_running_loop())  # type: ignore[arg-type]
        with pytest.raises(expected):
            await asyncio.wrap_future(decoder.complete(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), SAMPLING))
        assert (decoders.asked, decoders.running) == (calls, 0)


@pytest.mark.parametrize("error", [InvalidVoice("No.", "voice"), Overloaded("Full.", 2.5)])
async def test_typed_errors_pass_as_they_are(error: Exception) -> None:
    stream = streamed(lambda: Response(error), "Backbone")
    await anext(stream)
    with pytest.raises(type(error)) as caught:
        await anext(stream)
    assert caught.value is error
