"""A turn for a client that reads slowly: what nobody takes is not made."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from chroma_models.errors import StageUnavailable, TurnTimeout
from chroma_models.stages.survival import FrameLog, Losses, surviving
from chroma_models.types import FRAMES_PER_S, Admitted, AudioChunk, Turn
from deployments.ingress.config import IngressConfig
from deployments.ingress.speaker import Item, Speaker
from deployments.ingress.spoken import FRAME_BYTES

KEEP_ALIVE_S = 1.0


async def unhurried(speaker: Speaker, turn: Turn, config: IngressConfig) -> AsyncGenerator[Item, None]:
    """The turn's items, read ahead of the caller by at most pause_above_s.

    When more audio waits, the stream behind is closed and its slots are free; the frames so far are kept, and once the
    caller has come down to resume_below_s the turn goes on from them. Frames that come twice are dropped. Raises what
    the stream raises, once all audio before it has been taken, and TurnTimeout after a pause of max_send_s. Work of
    pace "fast" has no listener to keep up with, and is bounded by its own length. A lost replica is outlived, as the
    stages outlive theirs.
    """
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
        self._losses, self._frames = Losses(turn), FrameLog()
        self._most = float("inf") if turn.pace == "fast" else config.pause_above_s * FRAMES_PER_S
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

    async def _read(self) -> bool:
        """True at the end of the stream, False where it was closed because too much waits."""
        config = self._config
        stream = surviving(self._begin, self._losses, "Codec", config.stall_timeout_s, config.admission_s)
        async with aclosing(stream) as items:
            async for item in items:
                self.resuming = False
                self._put(item)
                if self._waiting > self._most and self._fingerprint:
                    return False
        return True

    def _begin(self) -> AsyncGenerator[Item, None]:
        if self._fingerprint is not None:
            self.resuming = True
            self.changed.set()  # or the caller would not know that it waits for longer now
        return self._speaker.speak(self._losses.turn, self._frames.progress(self._fingerprint))

    def _put(self, item: Item) -> None:
        if isinstance(item, Admitted):
            again = self._fingerprint is not None
            if not self._frames:  # what has brought nothing yet may begin anew on whatever weights
                self._fingerprint = item.fingerprint
            if again:
                return
        elif isinstance(item, AudioChunk):
            frames = tuple(self._frames.add(item.frames))
            if len(frames) < len(item.frames):
                item = AudioChunk(frames, item.pcm[(len(item.frames) - len(frames)) * FRAME_BYTES :])
            if not frames and self.items:
                return
            self._waiting += len(frames)
        else:
            item = replace(item, losses=self._losses.count)
        self.items.append(item)
        self.changed.set()
