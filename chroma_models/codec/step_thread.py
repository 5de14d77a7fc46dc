"""The thread that owns the decoder: jobs come from an event loop, run batched, and are answered in one call."""

import asyncio
import heapq
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

import torch
from torch import Tensor

from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.codec.stream_state import StreamState
from chroma_models.engine.cuda_graph import announce
from chroma_models.engine.slots import Slot
from chroma_models.engine.step_log import StepLog
from chroma_models.errors import ChromaError, StageUnavailable

log = logging.getLogger(__name__)
RETRY_S = 1.0


@dataclass(frozen=True, eq=False)
class Decode:
    """The next frames of a slot's stream: codes int64 [group, CODEBOOKS], for float32 PCM.

    due     monotonic seconds until which it may wait for others to share its step with
    needed  when its listener will have played all there is: the order in which steps are taken
    """

    slot: Slot
    codes: Tensor
    future: "asyncio.Future[bytes]"
    due: float = 0.0
    needed: float = 0.0


@dataclass(frozen=True, eq=False)
class Place:
    """Start a slot's stream anew: from a prepared state, or from nothing. It is due at once: what follows it waits."""

    due: ClassVar[float] = 0.0
    needed: ClassVar[float] = 0.0
    slot: Slot
    state: StreamState | None
    future: "asyncio.Future[bytes] | None"  # None: nobody waits for it


Job = Decode | Place
Result = bytes | Exception


class StepThread:
    """Jobs of one slot run in the order they came; Decodes of one group length run together, the soonest needed first.

    A Decode that may wait does so until it is due, or until enough rows have gathered for one more to save nothing.
    How long one has waited does not count beside another's listener who is about to hear nothing.

    A slot whose frames were lost, by a failed step or a caller that gave up, is out of step with its listener. It
    answers StageUnavailable until a Place starts it anew.
    """

    def __init__(self, decoder: StreamDecoder) -> None:
        self.ran = StepLog()
        self.frames = 0  # decoded
        self.failed_steps = 0
        self._decoder = decoder
        self._queue: deque[Job] = deque()
        self._broken: set[Slot] = set()
        self._wake = threading.Condition()
        self._working = False
        self._sleeps_until = math.inf  # no need to wake the thread for what is due later
        self._closing = False
        self._progress_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Start the thread and wait until it has decoded once in every group length."""
        self._loop = asyncio.get_running_loop()
        warmed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(self._loop, warmed), name="codec-steps", daemon=True)
        self._thread.start()
        await warmed

    async def stop(self) -> None:
        """End the thread after its current step. What was queued fails with StageUnavailable."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def step_seconds(self) -> float:
        return self.ran.busy_s

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._closing

    def stalled_s(self) -> float:
        """Seconds without progress while there is work; 0 when idle."""
        with self._wake:
            return time.monotonic() - self._progress_at if self._working or self._queue else 0.0

    def submit(self, job: Job) -> None:
        """Queue a job. Raises StageUnavailable when the thread is gone."""
        with self._wake:
            if not self.alive:
                raise StageUnavailable("The codec is shutting down.", RETRY_S)
            if not self._working and not self._queue:
                self._progress_at = time.monotonic()
            self._queue.append(job)
            if job.due < self._sleeps_until or len(self._queue) >= self._decoder.full_rows:
                self._wake.notify()

    def abandon(self, slot: Slot) -> None:
        """A caller no longer wants frames that it queued: the slot's stream now has a hole."""
        with self._wake:
            self._broken.add(slot)

    def _run(self, loop: asyncio.AbstractEventLoop, warmed: "asyncio.Future[None]") -> None:
        failure: Exception | None = None
        try:
            self._decoder.warm_up(announce("codec"))
        except Exception as error:
            log.exception("The codec's warm-up failed")
            failure = error
            self._closing = True
        loop.call_soon_threadsafe(_settle, warmed, failure)
        try:
            while self._serve(loop):
                pass
        finally:  # nobody is left waiting, whatever ended the loop
            with self._wake:
                self._closing = True
                left = list(self._queue)
                self._queue.clear()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, _all(left, "The codec is shutting down."))

    def _serve(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait for jobs and run a batch of them. False: it is time to close."""
        with self._wake:
            while not self._closing and (nap_s := self._nap_s()) > 0:
                self._sleeps_until = time.monotonic() + nap_s
                self._wake.wait(None if math.isinf(nap_s) else nap_s)
            self._sleeps_until = -math.inf
            if self._closing:
                return False
            batch = self._take()
            self._working = True
        results = self._execute(batch)
        with self._wake:
            self._working = False
            self._progress_at = time.monotonic()
        loop.call_soon_threadsafe(_deliver, results)
        return True

    def _nap_s(self) -> float:
        """Until something has to be done: infinite with an empty queue. The lock is held."""
        if not self._queue:
            return math.inf
        if len(self._queue) >= self._decoder.full_rows:
            return 0.0
        return min(job.due for job in self._queue) - time.monotonic()

    def _take(self) -> list[Job]:
        """The job needed soonest, with the next of those that may share its step. The lock is held."""
        free: list[Job] = []  # the oldest job of each slot
        seen: set[int] = set()
        for job in self._queue:
            if job.slot.row not in seen:
                free.append(job)
            seen.add(job.slot.row)
        first = min(free, key=attrgetter("needed"))
        batch: list[Job] = [first]
        if isinstance(first, Decode):
            alike = [j for j in free if isinstance(j, Decode) and len(j.codes) == len(first.codes)]
            batch = heapq.nsmallest(self._decoder.full_rows, alike, key=attrgetter("needed"))
        taken = set(batch)
        self._queue = deque(job for job in self._queue if job not in taken)
        return batch

    def _execute(self, batch: list[Job]) -> list[tuple[Job, Result]]:
        if isinstance(batch[0], Place):
            return [(batch[0], self._place(batch[0]))]
        with self._wake:
            broken = {job.slot for job in batch if job.slot in self._broken}
        lost = _all([job for job in batch if job.slot in broken], "Frames of this stream were lost.")
        whole = [job for job in batch if isinstance(job, Decode) and job.slot not in broken]
        return lost + (self._decode(whole) if whole else [])

    def _place(self, job: Place) -> Result:
        with self._wake:
            self._broken = {slot for slot in self._broken if slot.row != job.slot.row}
        try:
            if job.state is None:
                self._decoder.reset([job.slot.row])
            else:
                self._decoder.restore(job.slot.row, job.state)
        except Exception as error:
            self.abandon(job.slot)
            return _meaning(error)
        return b""

    def _decode(self, jobs: list[Decode]) -> list[tuple[Job, Result]]:
        jobs.sort(key=lambda job: job.slot.row)
        started = time.perf_counter()
        try:
            codes = torch.stack([job.codes for job in jobs]).to(self._decoder.device)
            pcm = self._decoder.step([job.slot.row for job in jobs], codes).cpu().numpy()
        except Exception as error:
            self.failed_steps += 1
            for job in jobs:
                self.abandon(job.slot)
            return [(job, _meaning(error)) for job in jobs]
        self.ran.add(time.perf_counter() - started, len(jobs))
        self.frames += len(jobs) * codes.shape[1]
        return [(job, row.tobytes()) for job, row in zip(jobs, pcm, strict=True)]


def _all(jobs: list[Job], reason: str) -> list[tuple[Job, Result]]:
    return [(job, StageUnavailable(reason, RETRY_S)) for job in jobs]


def _meaning(error: Exception) -> Exception:
    """Called where the error is handled, so that the log has its traceback."""
    if isinstance(error, ChromaError):
        return error
    log.exception("A codec step failed")
    return StageUnavailable(f"A codec step failed: {type(error).__name__}.", RETRY_S)


def _settle(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _deliver(results: list[tuple[Job, Result]]) -> None:
    """In the event loop: answer every job of a step whose caller still waits."""
    for job, result in results:
        if job.future is None or job.future.done():
            continue
        if isinstance(result, bytes):
            job.future.set_result(result)
        else:
            job.future.set_exception(result)
