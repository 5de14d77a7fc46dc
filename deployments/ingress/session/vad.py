"""Voice activity: one small network for all sessions of a replica, in a thread beside the event loop."""

import asyncio
import contextvars
import importlib.util
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chroma_models.errors import StageUnavailable
from chroma_models.types import LISTEN_RATE_HZ
from deployments.ingress.config import VadSettings
from deployments.ingress.session.turn_taking import CHUNK_S, CHUNK_SAMPLES

log = logging.getLogger(__name__)

CONTEXT_SAMPLES = 64  # of the chunk before, in front of each
CHUNK_BYTES = 2 * CHUNK_SAMPLES
MOST_CHUNKS = 32  # of a stream in one go; 1 s, so that one that is far behind does not keep the others
STATE_SHAPE = (2, 128)  # of the recurrent layer, one stream


class Vad:
    """Batches what all streams wait for. Loads the network at the first chunk."""

    def __init__(self, settings: VadSettings) -> None:
        self.settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vad")
        self._waiting: dict[VadStream, None] = {}  # in the order they came
        self._listening: asyncio.Task[None] | None = None

    def stream(self, heard: Callable[[float], None]) -> "VadStream":
        """heard: called in the event loop with the probability of speech of each chunk, in order."""
        return VadStream(self, heard)

    async def warm(self) -> None:
        """Load the network now rather than at the first chunk of sound."""
        await asyncio.get_running_loop().run_in_executor(self._thread, _network)

    def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def wants(self, stream: "VadStream") -> None:
        """There are chunks of the stream to be heard."""
        self._waiting[stream] = None
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name="vad", context=contextvars.Context())

    def forget(self, stream: "VadStream") -> None:
        self._waiting.pop(stream, None)

    async def _listen(self) -> None:
        """Until nobody waits: gather for a tick, then all that waits at once. Each way to the thread and back takes
        milliseconds on a busy machine, however little there is to do."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(self.settings.tick_s)
            streams = sorted(self._waiting, key=lambda stream: -stream.chunks)
            if not streams:
                return
            windows = [stream.next() for stream in streams]
            states = np.stack([stream.state for stream in streams], axis=1)
            try:
                told, states = await loop.run_in_executor(self._thread, hear, windows, states)
            except Exception:
                log.exception("voice activity detection failed")
                for stream in streams:
                    stream.fail()
                continue
            for i, stream in enumerate(streams):
                stream.hear(told[i], states[:, i])


def hear(windows: list[NDArray[np.float32]], states: NDArray[np.float32]) -> tuple[list[list[float]], Any]:
    """windows: [chunks, CONTEXT + CHUNK] of each stream, the longest first; states: [2, streams, 128], which become the
    new ones. Returns the probability of speech of each stream's chunks, and states."""
    network, rate = _network(), np.array(LISTEN_RATE_HZ, np.int64)
    told: list[list[float]] = [[] for _ in windows]
    for i in range(len(windows[0])):
        batch = np.stack([window[i] for window in windows if len(window) > i])
        count = len(batch)
        probabilities, after = network.run(None, {"input": batch, "state": states[:, :count], "sr": rate})
        states[:, :count] = after
        for one, probability in zip(told, probabilities[:, 0].tolist(), strict=False):
            one.append(probability)
    return told, states


class VadStream:
    """One session's sound on its way through the network, with the network's memory of it."""

    def __init__(self, vad: Vad, heard: Callable[[float], None]) -> None:
        self._vad, self._heard = vad, heard
        self.state: NDArray[np.float32] = np.zeros(STATE_SHAPE, np.float32)
        self._context: NDArray[np.float32] = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._waiting = bytearray()  # int16 samples
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._open, self._failed = True, False

    @property
    def chunks(self) -> int:
        """Whole ones that wait."""
        return len(self._waiting) // CHUNK_BYTES

    def listen(self, samples: NDArray[np.int16]) -> None:
        """Raises StageUnavailable once listening has failed."""
        if self._failed:
            raise StageUnavailable("Turn detection has failed; switch it off, or connect again.", 1.0)
        self._waiting += samples.tobytes()
        if self.chunks:
            self._caught_up.clear()
            self._vad.wants(self)

    async def caught_up(self) -> None:
        """Returns at once while little waits: a client that sends faster than is heard is slowed down."""
        if self.chunks * CHUNK_S > self._vad.settings.max_waiting_s:
            await self._caught_up.wait()

    async def heard_all(self) -> None:
        """Returns when no whole chunk waits."""
        await self._caught_up.wait()

    def next(self) -> NDArray[np.float32]:
        """float32 [chunks, CONTEXT + CHUNK]: what the network hears next, at most MOST_CHUNKS."""
        taken = min(self.chunks, MOST_CHUNKS) * CHUNK_BYTES
        sound = np.frombuffer(self._waiting[:taken], np.int16).astype(np.float32) / np.float32(32768.0)
        del self._waiting[:taken]
        chunks = sound.reshape(-1, CHUNK_SAMPLES)
        windows = np.empty((len(chunks), CONTEXT_SAMPLES + CHUNK_SAMPLES), np.float32)
        windows[:, CONTEXT_SAMPLES:] = chunks
        windows[0, :CONTEXT_SAMPLES] = self._context
        windows[1:, :CONTEXT_SAMPLES] = chunks[:-1, -CONTEXT_SAMPLES:]
        self._context = chunks[-1, -CONTEXT_SAMPLES:]
        return windows

    def hear(self, probabilities: list[float], state: NDArray[np.float32]) -> None:
        """Of the chunks that next() gave."""
        self.state = state
        if not self.chunks:
            self._vad.forget(self)
            self._caught_up.set()
        try:
            for probability in probabilities:
                if self._open:  # what is heard may end it
                    self._heard(probability)
        except Exception:  # one session's fault must not deafen the others
            log.exception("a session did not take what was heard")
            self.fail()

    def fail(self) -> None:
        self._failed = True
        self.close()

    def close(self) -> None:
        self._open = False
        self._waiting.clear()
        self._vad.forget(self)
        self._caught_up.set()


@cache
def _network() -> Any:
    """The network of the silero-vad package, whose own code would import torch. One for all threads.

    Of its files the one for 16 kHz alone: the same numbers, in two thirds of the time for a few streams."""
    import onnxruntime

    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        raise StageUnavailable("The package silero-vad is not installed.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = Path(found.origin).parent / "data" / "silero_vad_16k_op15.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
