"""How fast a client's events are read."""

import asyncio


class Pace:
    """Lets burst events through at once and per_s of them over time; the rest waits in the client's own socket."""

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._clock = asyncio.get_running_loop().time
        self._left = self._burst
        self._counted_at = self._clock()

    def take_s(self) -> float:
        """One more event is to be read, after so many seconds."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._per_s) - 1
        self._counted_at = now
        return max(0.0, -self._left / self._per_s)
