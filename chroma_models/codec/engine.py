"""The Codec engine: slots of streamed speech, and voices, for callers in one event loop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from chroma_models.codec.step_thread import RETRY_S, Decode, Place, StepThread
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.codec.voice_encoder import VoiceEncoder
from chroma_models.config import CodecConfig
from chroma_models.engine.slots import Slot, SlotPool
from chroma_models.errors import InvalidCodes, InvalidVoice, Overloaded, StageUnavailable
from chroma_models.types import CODEBOOKS, ONE_SHARE, SAMPLE_RATE_HZ, FairShare

T = TypeVar("T")


class CodecEngine:
    """Decodes the frames of many streams in shared steps, on a thread of its own; encodes voices on another.

    Metrics read plain attributes: thread.ran, .frames, .failed_steps; slots_held, voices, rebuilds.
    """

    def __init__(self, decoder: StreamDecoder, encoder: VoiceEncoder, config: CodecConfig) -> None:
        if decoder.max_group != config.max_group:
            raise ValueError(f"The decoder takes {decoder.max_group} frames at once, the settings {config.max_group}.")
        self.thread = StepThread(decoder)
        self.voices = 0  # clips encoded
        self.rebuilds = 0  # streams continued from their codes
        self._decoder, self._encoder, self.config = decoder, encoder, config
        self._pool = SlotPool(decoder.slots)
        # One thread each: a resumed stream, which someone listens to, does not wait for clips.
        self._voice_thread = ThreadPoolExecutor(1, "codec-voices")
        self._rebuild_thread = ThreadPoolExecutor(1, "codec-rebuilds")
        self._encoding = 0
        self._stopped = False

    async def start(self) -> None:
        """Returns once a warm-up has run. Use the engine from this event loop only."""
        await self.thread.start()

    async def stop(self) -> None:
        """Whoever waits for a result gets StageUnavailable. A clip or a rebuild at work runs to its end, unheard."""
        self._stopped = True
        await self.thread.stop()
        for executor in (self._voice_thread, self._rebuild_thread):
            executor.shutdown(wait=False, cancel_futures=True)

    @property
    def slots_held(self) -> int:
        return len(self._pool.held)

    def check(self) -> None:
        """Raises StageUnavailable if the step loop is gone, or has work and made no progress for stall_timeout_s."""
        if not self.thread.alive:
            raise StageUnavailable("The codec's step loop is not running.", RETRY_S)
        stalled_s = self.thread.stalled_s()
        if stalled_s > self.config.stall_timeout_s:
            raise StageUnavailable(f"The codec's step loop made no progress for {stalled_s:.1f} s.", RETRY_S)

    @asynccontextmanager
    async def slot(self, turn_id: str, share: FairShare = ONE_SHARE) -> AsyncGenerator[Slot, None]:
        """A stream that has heard nothing yet. Raises Overloaded when no slot comes free in admit_timeout_s."""
        slot = await self._pool.acquire(turn_id, self.config.admit_timeout_s, share=share)
        try:
            # Queued, not awaited: it runs before anything else of this slot, and after what its last owner left behind.
            self.thread.submit(Place(slot, None, None))
            yield slot
        finally:
            self._pool.release(slot)

    async def decode(self, slot: Slot, codes: np.ndarray, gather_s: float = 0.0, lead_s: float = 0.0) -> bytes:
        """The next frames of a stream as float32 samples, FRAME_SAMPLES each.

        codes    integers [1 .. max_group, CODEBOOKS]
        gather_s how long they may wait for other streams to share the step with
        lead_s   what the listener has left to play: who has least goes first
        raises   InvalidCodes; StageUnavailable when frames of this slot were lost (rebuild mends that)
        A cancelled decode loses its frames.
        """
        checked = self._checked(codes)
        if not 1 <= len(checked) <= self.config.max_group:
            raise InvalidCodes(f"{len(checked)} frames at once; the codec takes 1 to {self.config.max_group}.")
        self._owned(slot)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        now = time.monotonic()
        self.thread.submit(Decode(slot, checked, future, now + gather_s, now + max(gather_s, lead_s)))
        try:
            return await future
        except asyncio.CancelledError:
            self.thread.abandon(slot)
            raise

    async def rebuild(self, slot: Slot, codes: np.ndarray) -> None:
        """Make a stream go on after codes [frames, CODEBOOKS], as if they had been decoded. Other streams run on."""
        checked = self._checked(codes)
        self._owned(slot)
        state = await self._aside(self._rebuild_thread, lambda: self._decoder.prepare(checked.to(self._decoder.device)))
        self._owned(slot)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.thread.submit(Place(slot, state, future))
        await future
        self.rebuilds += 1

    async def encode_voice(self, pcm: bytes) -> bytes:
        """Codes int16 [frames, CODEBOOKS] of a reference clip, float32 mono little-endian at SAMPLE_RATE_HZ.

        Raises InvalidVoice, and Overloaded when as many clips wait as the codec has slots.
        """
        samples = self._samples(pcm)
        if self._encoding >= self.config.slots:
            raise Overloaded("Too many voices are being encoded.", self.config.admit_timeout_s)
        self._encoding += 1
        try:
            codes = await self._aside(self._voice_thread, lambda: self._encoder.encode(samples))
        finally:
            self._encoding -= 1
        self.voices += 1
        return codes.astype("<i2").tobytes()

    async def _aside(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._stopped:
            raise StageUnavailable("The codec is shutting down.", RETRY_S)
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._stopped and not (task and task.cancelling()):  # stop() cancelled the work, not the caller
                raise StageUnavailable("The codec is shutting down.", RETRY_S) from None
            raise

    def _owned(self, slot: Slot) -> None:
        if self._pool.held.get(slot.row) is not slot:
            raise StageUnavailable(f"Turn {slot.turn_id} no longer holds its codec slot.", RETRY_S)

    def _checked(self, codes: np.ndarray) -> Tensor:
        """int64 [frames, CODEBOOKS]. An id past its codebook would read another one's vector, or past the table."""
        if codes.ndim != 2 or codes.shape[1] != CODEBOOKS or codes.dtype.kind not in "iu":
            raise InvalidCodes(f"Codes are {codes.dtype} {list(codes.shape)}, not integers [frames, {CODEBOOKS}].")
        size = self._decoder.shape.codebook_size
        if codes.size and not (codes.min() >= 0 and codes.max() < size):
            raise InvalidCodes(f"Codes reach from {codes.min()} to {codes.max()}; the codebooks hold 0 to {size - 1}.")
        return torch.from_numpy(codes.astype(np.int64))

    def _samples(self, pcm: bytes) -> np.ndarray:
        if not pcm or len(pcm) % 4:
            raise InvalidVoice("The reference clip is empty, or is not whole float32 samples.")
        samples = np.frombuffer(pcm, "<f4").astype(np.float32)
        seconds, most = len(samples) / SAMPLE_RATE_HZ, self.config.max_voice_s
        if seconds > most:
            raise InvalidVoice(f"The reference clip lasts {seconds:.1f} s; the longest one taken is {most:g} s.")
        if not np.isfinite(samples).all():
            raise InvalidVoice("The reference clip holds samples that are not numbers.")
        return samples
