"""The Codec stage: pulls frames from the Backbone, gives out speech."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import numpy as np

from chroma_models.codec.engine import CodecEngine
from chroma_models.engine.slots import Slot
from chroma_models.errors import Overloaded
from chroma_models.stages.backbone import FrameItem
from chroma_models.stages.streams import Lead, lively
from chroma_models.types import CODEBOOKS, Admitted, AudioChunk, Finished, Frame, Progress, Turn

SpeechItem = Admitted | AudioChunk | Finished
KEEP_ALIVE = AudioChunk((), b"")
EASY_S = 0.5  # a stream this far ahead of its listener shares its steps with others, and keeps to whole groups
GATHER_S = 0.04  # how long it waits for them


class BackboneSource(Protocol):
    """The stage before: in this process, or a handle to a deployment."""

    def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[FrameItem, None]: ...


class CodecStage:
    """One speak() call holds one codec slot and one Backbone stream, for exactly as long as it runs."""

    def __init__(self, engine: CodecEngine, backbone: BackboneSource) -> None:
        self.engine = engine
        self._backbone = backbone

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[SpeechItem, None]:
        """Speech of a turn, from where progress ends. Closing it frees the slot and everything upstream."""
        config = self.engine.config
        async with self.engine.slot(turn.id) as slot:
            if progress is not None and progress.frames:
                await self.engine.rebuild(slot, codes_array(progress.frames))
            decode_s, lead = 0.0, Lead()
            waiting: list[Frame] = []
            async with aclosing(self._frames(turn, progress)) as items:
                async for item in items:
                    if isinstance(item, Admitted):
                        yield item
                        continue
                    over = isinstance(item, Finished)
                    if not isinstance(item, Finished):
                        waiting += item
                    easy = lead.lead_s > EASY_S and not over
                    count = len(waiting) - (len(waiting) % config.max_group if easy else 0)
                    if count:
                        started = time.perf_counter()
                        pcm = await self._decode(slot, waiting[:count], GATHER_S if easy else 0.0)
                        decode_s += time.perf_counter() - started
                        yield AudioChunk(tuple(waiting[:count]), pcm)
                        lead.sent(count)
                        del waiting[:count]
                    elif not over:
                        yield KEEP_ALIVE
                    if isinstance(item, Finished):
                        yield Finished(item.reason, item.usage, {**item.timing, "codec.decode": decode_s})
                        return

    async def _decode(self, slot: Slot, frames: list[Frame], gather_s: float) -> bytes:
        """Samples of some frames, a group at a time."""
        codes, group = codes_array(frames), self.engine.config.max_group
        parts = [codes[i : i + group] for i in range(0, len(codes), group)]
        return b"".join([await self.engine.decode(slot, part, gather_s) for part in parts])

    async def _frames(self, turn: Turn, progress: Progress | None) -> AsyncGenerator[FrameItem, None]:
        """The Backbone's stream, asked for a second time where it refuses: on a cluster the router, which counts calls
        under way, is likely to pick another replica then. A second refusal is passed on.
        """
        config = self.engine.config
        patience_s = 2 * config.admit_timeout_s + config.stall_timeout_s
        for last_try in (False, True):
            frames = self._backbone.frames(turn, progress)
            try:
                async with aclosing(lively(frames, "Backbone", config.stall_timeout_s, patience_s)) as items:
                    async for item in items:
                        yield item
                return
            except Overloaded:  # comes before the first item alone
                if last_try:
                    raise

    async def encode_voice(self, pcm: bytes) -> bytes:
        """A reference clip, float32 mono 24 kHz, as int16 codes [frames, CODEBOOKS]. Raises InvalidVoice."""
        return await self.engine.encode_voice(pcm)


def codes_array(frames: "list[Frame] | tuple[Frame, ...]") -> np.ndarray:
    """int16 [frames, CODEBOOKS]"""
    return np.frombuffer(b"".join(frame.codes for frame in frames), np.int16).reshape(-1, CODEBOOKS)
