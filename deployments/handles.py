"""Serve handles as the stages see them: typed errors, and a stream that is closed is cancelled upstream."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from chroma_models.engine.decoder_engine import DecoderBatch, unpack_codes
from chroma_models.errors import ChromaError, Lost, Overloaded, StageUnavailable
from chroma_models.sampling import RowSampling
from chroma_models.stages.backbone import FrameItem, StepItem
from chroma_models.stages.codec import SpeechItem
from chroma_models.types import Progress, Turn
from deployments.traces import FirstFrames

log = logging.getLogger("chroma.handles")
T = TypeVar("T")

HEDGE_S = 0.5  # far above any step; a Decoder that takes longer hangs, or is overrun
HEDGES = 8

LOST = (RayActorError, DeploymentUnavailableError, grpc.RpcError)


def typed(error: Exception, stage: str) -> ChromaError:
    """What a failed call means. The words of an unexpected failure go to the log, not to the client."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    if isinstance(error, ChromaError):
        return error
    if isinstance(error, BackPressureError):
        return Overloaded(f"The {stage} has no room for another call.", 1.0)
    if not isinstance(error, LOST):
        log.error("unexpected failure of the %s", stage, exc_info=error)
        return StageUnavailable(f"The {stage} failed.", 1.0)
    return Lost(f"The {stage} was lost.", 1.0)


@contextmanager
def translated(stage: str) -> Iterator[None]:
    """Turns what a call may raise into typed errors.

    A CancelledError while nobody cancels this task comes from the other side: Serve passes on that the call was
    cancelled on its replica. Let through, it would look like a hang-up, and the turn would end without a word.
    """
    try:
        yield
    except (RayError, RayServeException, grpc.RpcError, ChromaError) as error:
        raise typed(error, stage) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Lost(f"The {stage} gave the call up.", 1.0) from error


def streaming(handle: DeploymentHandle) -> DeploymentHandle:
    """For streamed(). Items are of classes that every replica can import, so plain pickle will do: cloudpickle looks
    each class up among its modules, for every item again.
    """
    return handle.options(stream=True, response_serialization="pickle")


async def streamed(call: Callable[[], Any], stage: str) -> AsyncGenerator[Any, None]:
    """Items of a streaming handle call. Closing this generator cancels the call, at whatever moment."""
    response = None
    try:
        with translated(stage):
            response = call()
            async for item in response:
                yield item
    finally:
        if response is not None:
            response.cancel()


async def answering(handle: DeploymentHandle, stage: str) -> None:
    """Returns once a replica of the stage answers, however long it takes to start."""
    await unary(handle.state.remote, stage)


class RemoteReasoner:
    """Routed by the turn's affinity, to the replica that holds the conversation's prefix."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = streaming(handle)

    def steps(self, turn: Turn, after: Sequence[int] = ()) -> AsyncGenerator[StepItem, None]:
        handle = self._handle.options(session_id=turn.affinity)
        return streamed(lambda: handle.steps.remote(turn, tuple(after)), "Reasoner")


class RemoteBackbone:
    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = streaming(handle)

    def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[FrameItem, None]:
        return streamed(lambda: self._handle.frames.remote(turn, progress), "Backbone")


class RemoteCodec:
    """What the ingress speaks through."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streams = streaming(handle)

    def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[SpeechItem, None]:
        return streamed(lambda: self._streams.speak.remote(turn, progress), "Codec")

    async def encode_voice(self, pcm: bytes) -> bytes:
        codes: bytes = await unary(lambda: self._handle.encode_voice.remote(pcm), "Codec")
        return codes


async def unary(call: Callable[[], Any], stage: str) -> Any:
    with translated(stage):
        return await call()


class RemoteDecoder:
    """A FrameDecoder on another replica. The engine's thread asks, the event loop carries: one call per batch.

    It keeps nothing, and its answer is a function of the batch alone: where a replica is lost, or does not answer in
    HEDGE_S, another one is asked, and the first answer counts.
    """

    def __init__(
        self, handle: DeploymentHandle, loop: asyncio.AbstractEventLoop, first_frames: FirstFrames | None = None
    ) -> None:
        self._handle, self._loop, self._first_frames = handle, loop, first_frames or FirstFrames()

    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "Future[Tensor]":
        batch = DecoderBatch.pack(hidden, code0, sampling)
        return asyncio.run_coroutine_threadsafe(self._complete(batch, hidden), self._loop)

    async def _complete(self, batch: DecoderBatch, hidden: Tensor) -> Tensor:
        try:
            async with asyncio.timeout(HEDGE_S):
                codes = await self._ask(batch)
        except (Lost, TimeoutError) as error:
            log.warning("a Decoder was lost in the middle of a step: %s", error or f"no answer in {HEDGE_S:g} s")
            codes = await self._hedged(batch)
        return unpack_codes(codes, hidden.device)

    async def _ask(self, batch: DecoderBatch) -> Any:
        with translated("Decoder"):
            return await self._handle.complete.remote(batch, self._first_frames.traces(batch))

    async def _hedged(self, batch: DecoderBatch) -> Any:
        """Raises what the last one asked has raised, or Lost where nobody answers."""
        asked = set[asyncio.Task[Any]]()
        try:
            for _ in range(HEDGES):
                asked.add(asyncio.create_task(self._ask(batch)))
                done, asked = await asyncio.wait(asked, timeout=HEDGE_S, return_when=asyncio.FIRST_COMPLETED)
                for answer in done:
                    if (failure := answer.exception()) is None:
                        return answer.result()
                    if not isinstance(failure, Lost):
                        raise failure
                if done:
                    await asyncio.sleep(HEDGE_S / 10)  # a router soon knows who is dead
            raise Lost("No Decoder answers.", 1.0)  # this Backbone; another one may know another
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
