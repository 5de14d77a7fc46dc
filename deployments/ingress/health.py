"""What the probes ask and the drain waits for."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True)
class Probed:
    """How a turn of the replica's own went. outcome: "ok", or the code of what went wrong."""

    outcome: str
    first_audio_s: float | None
    at: float  # Unix second of its end

    def told(self) -> dict[str, object]:
        return {"outcome": self.outcome, "first_audio_s": self.first_audio_s, "ago_s": round(time.time() - self.at, 1)}


class Health:
    """ready is set by whoever warmed the graph up, fingerprint by the last admitted turn."""

    def __init__(self) -> None:
        self.fingerprint = ""  # of weights and settings behind us
        self.probed: Probed | None = None  # the last turn of our own, where there are any
        self._ready = self._draining = False
        self._changed = asyncio.Event()
        self._live: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._cut: set[asyncio.Task[object]] = set()  # those that cut() has cancelled, until they have noticed
        self._left = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._ready = ready
        self._tell()

    @property
    def draining(self) -> bool:
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._tell()

    async def changed(self) -> None:
        """Returns when ready or draining has been set once more."""
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def live(self) -> int:
        """Requests being answered."""
        return len(self._live)

    @property
    def system_fingerprint(self) -> str:
        """Short and opaque: equal where the model behind is."""
        return "fp_" + blake2b(self.fingerprint.encode(), digest_size=6).hexdigest()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts the request of the current task while the block runs."""
        task = asyncio.current_task()
        assert task is not None
        self._live.add(task)
        self._idle.clear()
        try:
            yield
        finally:
            self._live.discard(task)
            self._cut.discard(task)
            if not self._live:
                self._idle.set()

    async def idle(self) -> None:
        """Returns when no request is being answered."""
        await self._idle.wait()

    def leave(self) -> None:
        """Nobody new finds us any more: a connection that is closed now is opened again elsewhere."""
        self._left.set()

    async def left(self) -> None:
        await self._left.wait()

    def cut(self) -> None:
        """End every request that is being answered."""
        self._cut |= self._live
        for task in self._live:
            task.cancel()

    def uncancel(self) -> bool:
        """Whether the current task was cancelled by cut(), and may go on to say so. What cancels it again ends it."""
        task = asyncio.current_task()
        if task not in self._cut:
            return False
        self._cut.discard(task)
        task.uncancel()
        return True
