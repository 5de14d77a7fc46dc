"""Voice activity: one small network for all sessions of a replica, in a thread beside the event loop."""

import asyncio
import contextvars
import importlib.util
import logging
from collections import deque
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
        """Until nobody waits: gather for a tick, then one chunk of every stream that waits, again and again."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(self.settings.tick_s)
            while self._waiting:
                streams = list(self._waiting)
                chunks = np.stack([stream.next() for stream in streams])
                states = np.stack([stream.state for stream in streams], axis=1)
                try:
                    probabilities, states = await loop.run_in_executor(self._thread, self._hear, chunks, states)
                except Exception:
                    log.exception("voice activity detection failed")
                    for stream in streams:
                        stream.fail()
                    continue
                for i, stream in enumerate(streams):
                    stream.hear(float(probabilities[i, 0]), states[:, i])

    def _hear(self, chunks: NDArray[np.float32], states: NDArray[np.float32]) -> Any:
        """[n, CONTEXT + CHUNK] and [2, n, 128] -> probabilities [n, 1] and the new states."""
        rate = np.array(LISTEN_RATE_HZ, np.int64)
        return _network().run(None, {"input": chunks, "state": states, "sr": rate})


class VadStream:
    """One session's sound on its way through the network, with the network's memory of it."""

    def __init__(self, vad: Vad, heard: Callable[[float], None]) -> None:
        self._vad, self._heard = vad, heard
        self.state: NDArray[np.float32] = np.zeros(STATE_SHAPE, np.float32)
        self._context: NDArray[np.float32] = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)  # less than a chunk
        self._chunks: deque[NDArray[np.int16]] = deque()
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._open, self._failed = True, False

    def listen(self, samples: NDArray[np.int16]) -> None:
        """Raises StageUnavailable once listening has failed."""
        if self._failed:
            raise StageUnavailable("Turn detection has failed; switch it off, or connect again.", 1.0)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % CHUNK_SAMPLES
        self._chunks.extend(samples[:whole].reshape(-1, CHUNK_SAMPLES))
        self._rest = samples[whole:]
        if self._chunks:
            self._caught_up.clear()
            self._vad.wants(self)

    async def caught_up(self) -> None:
        """Returns at once while little waits: a client that sends faster than is heard is slowed down."""
        if len(self._chunks) * CHUNK_S > self._vad.settings.max_waiting_s:
            await self._caught_up.wait()

    async def heard_all(self) -> None:
        """Returns when no whole chunk waits."""
        await self._caught_up.wait()

    def next(self) -> NDArray[np.float32]:
        """float32 [CONTEXT + CHUNK]: what the network hears next."""
        chunk = self._chunks.popleft().astype(np.float32) / np.float32(32768.0)
        context, self._context = self._context, chunk[-CONTEXT_SAMPLES:]
        return np.concatenate([context, chunk])

    def hear(self, probability: float, state: NDArray[np.float32]) -> None:
        self.state = state
        if not self._chunks:
            self._vad.forget(self)
            self._caught_up.set()
        if not self._open:
            return
        try:
            self._heard(probability)
        except Exception:  # one session's fault must not deafen the others
            log.exception("a session did not take what was heard")
            self.fail()

    def fail(self) -> None:
        self._failed = True
        self.close()

    def close(self) -> None:
        self._open = False
        self._chunks.clear()
        self._vad.forget(self)
        self._caught_up.set()


@cache
def _network() -> Any:
    """The network of the silero-vad package, whose own code would import torch. One for all threads."""
    import onnxruntime

    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        raise StageUnavailable("The package silero-vad is not installed.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = Path(found.origin).parent / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
