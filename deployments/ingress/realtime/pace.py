"""How fast a client's events are read."""

import asyncio

from deployments.ingress.config import RealtimeLimits


class Pace:
    """Lets burst_events through at once and max_events_per_s over time; the rest waits in the client's own socket."""

    def __init__(self, limits: RealtimeLimits) -> None:
        self._limits = limits
        self._clock = asyncio.get_running_loop().time
        self._left = float(limits.burst_events)
        self._counted_at = self._clock()

    def take_s(self) -> float:
        """One more event is to be read, after so many seconds."""
        now = self._clock()
        earned = (now - self._counted_at) * self._limits.max_events_per_s
        self._left = min(float(self._limits.burst_events), self._left + earned) - 1
        self._counted_at = now
        return max(0.0, -self._left / self._limits.max_events_per_s)
