"""A mark in every reply that machines hear and people do not: whoever has one names it in models.ingress.watermark.

The setting is `package.module:factory`; factory() makes a Watermark, once in every ingress replica. Without it none of
this runs.
"""

import asyncio
import importlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chroma_models.errors import InvalidRequest, StageUnavailable
from chroma_models.types import AudioChunk
from deployments.ingress.speaker import Item

log = logging.getLogger(__name__)

Samples = NDArray[np.float32]


class Watermark(Protocol):
    """Called in one thread of its own, never twice at once, away from the event loop.

    name: told in each reply's provenance, for whoever has to choose a detector.
    """

    name: str

    def begin(self, reply_id: str) -> Any:
        """The state of a reply from its first sample on; mark() may change it. It is dropped with the reply."""
        ...

    def mark(self, states: Sequence[Any], pieces: Sequence[Samples]) -> Sequence[Samples]:
        """The next piece of each of several replies at once, marked.

        pieces: float32 [samples] at 24 kHz in -1..1, not to be written to; whole frames of 1920 samples, every reply's
        in order and without a gap, a reply at most once in a call. Returns as many arrays of the same lengths, without
        delay: sample i is sample i. What this takes is added to every reply's latency.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Piece:
    state: Any
    samples: Samples
    marked: asyncio.Future[Samples]


class Marker:
    """Takes replies' samples through a watermark, all that wait at once. A reply that cannot be marked fails."""

    def __init__(self, watermark: Watermark) -> None:
        self._watermark = watermark
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watermark")
        self._waiting: list[_Piece] = []
        self._marking: asyncio.Task[None] | None = None

    async def marked(self, reply_id: str, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same items, with other samples. items stays its opener's to close. Raises StageUnavailable."""
        state = await self._in_thread(partial(self._watermark.begin, reply_id))
        async for item in items:
            if isinstance(item, AudioChunk) and item.pcm:
                samples = await self._mark(state, np.frombuffer(item.pcm, "<f4"))
                yield replace(item, pcm=samples.tobytes())
            else:
                yield item

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _mark(self, state: Any, samples: Samples) -> Samples:
        piece = _Piece(state, samples, asyncio.get_running_loop().create_future())
        self._waiting.append(piece)
        if self._marking is None or self._marking.done():
            self._marking = asyncio.create_task(self._run(), name="watermark")
        return await piece.marked

    async def _run(self) -> None:
        """Until nothing waits. What comes meanwhile is marked together."""
        while self._waiting:
            pieces, self._waiting = self._waiting, []
            try:
                told = await self._in_thread(partial(self._pass, pieces))
            except StageUnavailable as error:
                for piece in pieces:
                    if not piece.marked.done():
                        piece.marked.set_exception(error)
                continue
            for piece, samples in zip(pieces, told, strict=True):
                if not piece.marked.done():  # its client may have hung up
                    piece.marked.set_result(samples)

    def _pass(self, pieces: list[_Piece]) -> list[Samples]:
        told = self._watermark.mark([piece.state for piece in pieces], [piece.samples for piece in pieces])
        marked = [np.ascontiguousarray(samples, "<f4") for samples in told]
        if [samples.shape for samples in marked] != [piece.samples.shape for piece in pieces]:
            raise ValueError(f"{self._watermark.name} gave other lengths than it got")
        return marked

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Raises StageUnavailable in the place of what the watermark raises, which is logged."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except Exception as error:
            log.error("the watermark failed", exc_info=error)
            raise StageUnavailable("The reply could not be marked.", 1.0) from None


def factory_of(setting: str) -> Callable[[], Watermark]:
    """What the setting names; it is not called. Raises InvalidRequest."""
    module, colon, name = setting.partition(":")
    told = f"models.ingress.watermark is '{setting[:128]}', which should be package.module:factory"
    if not (module and colon and name):
        raise InvalidRequest(f"{told}.")
    try:
        factory = getattr(importlib.import_module(module), name)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidRequest(f"{told}, and cannot be had: {why[:300]}.") from None
    if not callable(factory):
        raise InvalidRequest(f"{told}, and is not callable.")
    return factory  # type: ignore[no-any-return]


def load(setting: str) -> Watermark:
    """Raises InvalidRequest."""
    try:
        made = factory_of(setting)()
    except InvalidRequest:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidRequest(f"The watermark '{setting[:128]}' could not be made: {why[:300]}.") from None
    wants = [name for name in ("begin", "mark") if not callable(getattr(made, name, None))]
    if wants or not isinstance(getattr(made, "name", None), str):
        raise InvalidRequest(
            f"What '{setting[:128]}' makes is no watermark: it wants {', '.join(wants or ['a name'])}."
        )
    return made
