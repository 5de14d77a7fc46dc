"""The Codec stage: pulls frames from the Backbone, gives out speech."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import numpy as np

from chroma_models.codec.engine import CodecEngine
from chroma_models.engine.slots import Slot
from chroma_models.errors import Overloaded
from chroma_models.stages.backbone import FrameItem
from chroma_models.stages.streams import Lead
from chroma_models.stages.survival import FrameLog, Losses, check_goes_on, surviving
from chroma_models.types import CODEBOOKS, Admitted, AudioChunk, Finished, Frame, Progress, Turn

SpeechItem = Admitted | AudioChunk | Finished
KEEP_ALIVE = AudioChunk((), b"")
EASY_S = 0.5  # a stream this far ahead of its listener shares its steps with others, and keeps to whole groups
GATHER_S = 0.04  # how long it waits for them


class BackboneSource(Protocol):
    """The stage before: in this process, or a handle to a deployment."""

    def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[FrameItem, None]: ...


class _Speech:
    """One stream's frames on their way through the engine."""

    def __init__(self, engine: CodecEngine, slot: Slot) -> None:
        self._engine, self._slot, self._lead = engine, slot, Lead()
        self.waiting: list[Frame] = []
        self.decode_s = 0.0

    async def next(self) -> AudioChunk:
        """All that waits; of a stream that is well ahead, whole groups in company. A keep-alive where that is none."""
        easy = self._lead.lead_s > EASY_S
        count = len(self.waiting) - (len(self.waiting) % self._engine.config.max_group if easy else 0)
        return await self.chunk(count, GATHER_S if easy else 0.0) if count else KEEP_ALIVE

    async def chunk(self, count: int, gather_s: float = 0.0) -> AudioChunk:
        """The first frames that wait, decoded a group at a time."""
        frames, group = tuple(self.waiting[:count]), self._engine.config.max_group
        del self.waiting[:count]
        started = time.perf_counter()
        codes = codes_array(frames)
        parts = [codes[i : i + group] for i in range(0, count, group)]
        decode, lead_s = self._engine.decode, self._lead.lead_s
        pcm = b"".join([await decode(self._slot, part, gather_s, lead_s) for part in parts])
        self.decode_s += time.perf_counter() - started
        self._lead.sent(count)
        return AudioChunk(frames, pcm)


class CodecStage:
    """One speak() call holds one codec slot and one Backbone stream, for exactly as long as it runs."""

    def __init__(self, engine: CodecEngine, backbone: BackboneSource, fingerprint: str) -> None:
        self.engine = engine
        self.fingerprint = fingerprint  # of the checkpoint alone: it is float32 everywhere
        self._backbone = backbone
        self.resumed = 0  # Backbone streams that were opened again

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[SpeechItem, None]:
        """Speech of a turn, from where progress ends. Closing it frees the slot and everything upstream."""
        if progress is not None and progress.frames:
            check_goes_on(progress.fingerprint, self.fingerprint, "Codec")
        async with self.engine.slot(turn.id, turn.share) as slot:
            if progress is not None and progress.frames:
                await self.engine.rebuild(slot, codes_array(progress.frames))
            speech = _Speech(self.engine, slot)
            async with aclosing(self._frames(turn, progress)) as items:
                async for item in items:
                    if isinstance(item, Admitted):
                        yield item
                    elif isinstance(item, Finished):
                        if speech.waiting:
                            yield await speech.chunk(len(speech.waiting))
                        yield Finished(item.reason, item.usage, {**item.timing, "codec.decode": speech.decode_s})
                        return
                    else:
                        speech.waiting += item
                        yield await speech.next()

    async def _frames(self, turn: Turn, progress: Progress | None) -> AsyncGenerator[FrameItem, None]:
        """The turn's frames, each once, whatever becomes of the Backbone's replicas; an empty list each second while
        another one takes the turn up.
        """
        config, losses = self.engine.config, Losses(turn)
        frames, mark = FrameLog(progress.frames if progress else ()), progress.fingerprint if progress else None

        def begin() -> AsyncGenerator[FrameItem, None]:
            if mark is not None and losses.count > turn.losses:
                self.resumed += 1
            return self._taken(losses.turn, frames.progress(mark))

        patience_s = 2 * config.admit_timeout_s + config.stall_timeout_s
        nothing: FrameItem = []
        stream: AsyncGenerator[FrameItem, None] = surviving(
            begin, losses, "Backbone", config.stall_timeout_s, patience_s, nothing
        )
        async with aclosing(stream) as items:
            async for item in items:
                if isinstance(item, Admitted):
                    if not frames:  # what has brought nothing yet may begin anew on whatever weights
                        mark = item.fingerprint
                    yield replace(item, losses=losses.count)
                else:
                    yield list(frames.add(item)) if isinstance(item, list) else item

    async def _taken(self, turn: Turn, progress: Progress | None) -> AsyncGenerator[FrameItem, None]:
        """The Backbone's stream, asked for a second time where it refuses: on a cluster the router, which counts calls
        under way, is likely to pick another replica then. A second refusal is passed on.
        """
        for last_try in (False, True):
            try:
                async with aclosing(self._backbone.frames(turn, progress)) as items:
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
