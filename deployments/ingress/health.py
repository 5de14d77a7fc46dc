"""What the probes ask and the drain waits for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b


class Health:
    """ready is set by whoever warmed the graph up, fingerprint by the last admitted turn."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.fingerprint = ""  # of weights and settings behind us
        self._live = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> int:
        """Requests being answered."""
        return self._live

    @property
    def system_fingerprint(self) -> str:
        """Short and opaque: equal where the model behind is."""
        return "fp_" + blake2b(self.fingerprint.encode(), digest_size=6).hexdigest()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request while the block runs."""
        self._live += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._live -= 1
            if not self._live:
                self._idle.set()

    async def idle(self) -> None:
        """Returns when no request is being answered."""
        await self._idle.wait()
