"""A turn outlives the replicas it runs on: its streams are opened again elsewhere, from what they have brought."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from chroma_models.errors import Lost, StageUnavailable
from chroma_models.stages.streams import lively
from chroma_models.types import Admitted, Frame, Progress, Turn

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_LOSSES = 2  # of replicas under a turn, wherever: it may be what kills them, and must not walk through the cluster
TRIES = 3  # to find a replica that takes it, after which there seems to be none
KEEP_ALIVE_S = 1.0
PAUSE_S = 0.1  # before the second try; a router soon knows who is dead
WINDOW_FRAMES = 1024  # half of 2,048 positions: older text steps need no rows to be continued from


def check_goes_on(turn_mark: str, own_mark: str, stage: str) -> None:
    """Raises StageUnavailable where a turn under way would go on with other weights, or another dtype.

    turn_mark  the fingerprint of the Backbone that the turn began on
    own_mark   of the stage that is to go on: a beginning of it, as much of it as the stage depends on
    """
    if not f"{turn_mark}-".startswith(f"{own_mark}-"):
        raise StageUnavailable(f"The {stage} runs other weights or another dtype than the turn began on.", 1.0)


class Losses:
    """How many replicas a turn has lost so far. What a stage behind has seen arrives with its Admitted."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.count = turn.losses

    def see(self, admitted: Admitted) -> None:
        self.count = max(self.count, admitted.losses)

    def add(self, error: Lost) -> None:
        """Raises StageUnavailable where the turn has lost as many as it may."""
        if self.count >= MOST_LOSSES:
            raise StageUnavailable(f"{error.message} It was the {self.count + 1}. loss of this turn.", 1.0) from error
        self.count += 1

    @property
    def turn(self) -> Turn:
        """As the stage behind is to be told of it."""
        return self._turn if self.count == self._turn.losses else replace(self._turn, losses=self.count)


async def surviving(
    open_stream: Callable[[], AsyncGenerator[T, None]],
    losses: Losses,
    stage: str,
    stall_timeout_s: float,
    first_timeout_s: float,
    keep_alive: T | None = None,
) -> AsyncGenerator[T, None]:
    """Items of one stream after another: where a replica is lost, the next one goes on.

    open_stream  opens one from where the last has ended; frames or steps that come twice are its caller's to drop
    keep_alive   given out each second in which a later stream has nothing to say
    Raises StageUnavailable where the turn has lost as many replicas as it may, or no replica takes it: TRIES times, or
    in all of twice first_timeout_s. Whatever else the streams raise is passed on.
    """
    tries, ends_at, again = 0, time.monotonic() + 2 * first_timeout_s, False
    while True:
        admitted = False
        try:
            stream: AsyncGenerator[T | None, None] = lively(open_stream(), stage, stall_timeout_s, first_timeout_s)
            if again and keep_alive is not None:
                stream = _breathing(stream)
            async with aclosing(stream) as items:
                async for item in items:
                    if item is None:
                        assert keep_alive is not None
                        yield keep_alive
                        continue
                    if not admitted:
                        admitted, tries = True, 0
                    if isinstance(item, Admitted):
                        losses.see(item)
                    yield item
            return
        except Lost as error:
            log.warning("turn %s: %s", losses.turn.id, error.message)
            if admitted:
                losses.add(error)
                again = True
                ends_at = time.monotonic() + 2 * first_timeout_s
            tries += 1
            if tries >= TRIES or time.monotonic() > ends_at:
                raise StageUnavailable(f"No replica of the {stage} takes the turn.", 1.0) from error
            await asyncio.sleep(PAUSE_S * 2 ** (tries - 1) if not admitted else 0)


async def _breathing(stream: AsyncGenerator[T | None, None]) -> AsyncGenerator[T | None, None]:
    """The stream's items, and None whenever none has come for KEEP_ALIVE_S. Closes the stream at its end."""
    waiting: asyncio.Future[T | None] | None = None
    async with aclosing(stream) as items:
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(items))
                await asyncio.wait({waiting}, timeout=KEEP_ALIVE_S)
                if not waiting.done():
                    yield None
                    continue
                item, waiting = await waiting, None
                yield item
        except StopAsyncIteration:
            return
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


class FrameLog:
    """All frames of a turn so far, without what only the newest frames are continued from."""

    def __init__(self, frames: Sequence[Frame] = ()) -> None:
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Those that were not known; the others came twice."""
        if frames and frames[0].index < len(self._frames):
            frames = [frame for frame in frames if frame.index >= len(self._frames)]
        self._frames += frames
        for i in range(max(0, len(self._frames) - len(frames) - WINDOW_FRAMES), len(self._frames) - WINDOW_FRAMES):
            step = self._frames[i].step
            if step is not None:
                self._frames[i] = replace(self._frames[i], step=replace(step, row=b""))
        return frames

    def progress(self, fingerprint: str | None) -> Progress | None:
        """None where there is nothing to continue from."""
        return Progress(tuple(self._frames), fingerprint) if self._frames and fingerprint else None
