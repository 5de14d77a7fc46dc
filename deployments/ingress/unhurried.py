"""A turn for a client that reads slowly: what nobody takes is not made."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from chroma_models.errors import StageUnavailable, TurnTimeout
from chroma_models.types import FRAMES_PER_S, Admitted, AudioChunk, Frame, Progress, Turn
from deployments.ingress.config import IngressConfig
from deployments.ingress.speaker import Item, Speaker
from deployments.ingress.spoken import FRAME_BYTES

KEEP_ALIVE_S = 1.0
WINDOW_FRAMES = 1024  # half of 2,048 positions: older text steps need no rows to resume from (BackboneStage.frames)


async def unhurried(speaker: Speaker, turn: Turn, config: IngressConfig) -> AsyncGenerator[Item, None]:
    """The turn's items, read ahead of the caller by at most pause_above_s.

    When more audio waits, the stream behind is closed and its slots are free; the frames so far are kept, and once the
    caller has come down to resume_below_s the turn goes on from them. Frames that come twice are dropped. Raises what
    the stream raises, once all audio before it has been taken, and TurnTimeout after a pause of max_send_s. Work of
    pace "fast" has no listener to keep up with; it is bounded by its own length and passes through.
    """
    if turn.pace == "fast":
        async with aclosing(speaker.speak(turn)) as stream:
            async for item in stream:
                yield item
        return
    reader = _Reader(speaker, turn, config)
    pump = asyncio.create_task(reader.pump(), name=f"read-{turn.id}")
    pump.add_done_callback(lambda _: reader.changed.set())
    try:
        while True:
            if reader.items:
                yield reader.take()
            elif pump.done():
                if pump.cancelled():
                    raise StageUnavailable("The speech service was lost.", 1.0)
                pump.result()
                return
            else:
                reader.changed.clear()
                if not reader.resuming:
                    await reader.changed.wait()
                    continue
                with suppress(TimeoutError):  # the stages behind are silent until they have admitted the turn again
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await reader.changed.wait()
                        continue
                yield AudioChunk((), b"")
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


class _Reader:
    """Reads one turn's stream into a queue, as far ahead as it may."""

    def __init__(self, speaker: Speaker, turn: Turn, config: IngressConfig) -> None:
        self._speaker, self._turn, self._config = speaker, turn, config
        self.items: deque[Item] = deque()
        self.changed = asyncio.Event()
        self.resuming = False
        self._taken = asyncio.Event()
        self._frames: list[Frame] = []
        self._waiting = 0  # frames in items
        self._fingerprint: str | None = None

    def take(self) -> Item:
        item = self.items.popleft()
        if isinstance(item, AudioChunk):
            self._waiting -= len(item.frames)
        self._taken.set()
        return item

    async def pump(self) -> None:
        """Returns at the stream's end, however often it was paused."""
        while not await self._read():
            try:
                async with asyncio.timeout(self._config.max_send_s):
                    while self._waiting > self._config.resume_below_s * FRAMES_PER_S:
                        self._taken.clear()
                        await self._taken.wait()
            except TimeoutError:
                raise TurnTimeout("The reply was not read for too long.") from None
            self.resuming = True
            self.changed.set()  # or the caller would not know that it waits for longer now

    async def _read(self) -> bool:
        """True at the end of the stream, False where it was closed because too much waits."""
        progress = Progress(tuple(self._frames), self._fingerprint) if self._frames and self._fingerprint else None
        async with aclosing(self._speaker.speak(self._turn, progress)) as stream:
            try:
                async with asyncio.timeout(self._config.admission_s if self.resuming else None):
                    first = await anext(stream, None)
            except TimeoutError as error:
                raise StageUnavailable("The speech service did not take the turn up again.", 1.0) from error
            self.resuming = False
            if first is not None:
                self._put(first)
            async for item in stream:
                self._put(item)
                if self._waiting > self._config.pause_above_s * FRAMES_PER_S and self._fingerprint:
                    return False
        return True

    def _put(self, item: Item) -> None:
        if isinstance(item, Admitted):
            if self._fingerprint is not None:
                return
            self._fingerprint = item.fingerprint
        elif isinstance(item, AudioChunk):
            if item.frames and item.frames[0].index < len(self._frames):
                known = sum(frame.index < len(self._frames) for frame in item.frames)
                item = AudioChunk(item.frames[known:], item.pcm[known * FRAME_BYTES :])
            if not item.frames and self.items:
                return
            self._keep(item.frames)
        self.items.append(item)
        self.changed.set()

    def _keep(self, frames: tuple[Frame, ...]) -> None:
        """Remember what was made, without what only the newest frames are continued from."""
        self._waiting += len(frames)
        self._frames += frames
        for i in range(max(0, len(self._frames) - len(frames) - WINDOW_FRAMES), len(self._frames) - WINDOW_FRAMES):
            step = self._frames[i].step
            if step is not None:
                self._frames[i] = replace(self._frames[i], step=replace(step, row=b""))
