"""Events on their way to the client."""

import asyncio
from collections import deque
from collections.abc import Callable

from deployments.ingress.session.events import Delta, Event

WAITING_DELTAS = 4  # of one response; more stay in the turn's stream, which gives up what nobody takes (unhurried.py)
WAITING_EVENTS = 256  # beyond, nothing more is read from the client


class Outbox:
    """What is put, in order, until it is taken; a cancelled response's deltas are dropped."""

    def __init__(self, sent: Callable[[Delta], None]) -> None:
        """sent: told of each delta as it is taken."""
        self._sent = sent
        self._events: deque[Event] = deque()
        self._deltas: dict[str, int] = {}  # waiting, by response
        self._filled, self._taken = asyncio.Event(), asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        if self._closed:
            return
        if isinstance(event, Delta):
            self._deltas[event.response.id] = self._deltas.get(event.response.id, 0) + 1
        self._events.append(event)
        self._filled.set()

    async def take(self) -> Event | None:
        """The next event; None once closed. For one reader."""
        while not self._events:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        event = self._events.popleft()
        if isinstance(event, Delta):
            self._forget(event.response.id)
            self._sent(event)
        self._taken.set()
        return event

    def drop(self, response_id: str) -> None:
        """Forget the deltas of a response that have not been taken."""
        if self._deltas.pop(response_id, 0):
            self._events = deque(e for e in self._events if not (isinstance(e, Delta) and e.response.id == response_id))
            self._taken.set()

    async def room(self, response_id: str, deltas: int = WAITING_DELTAS) -> None:
        """Returns when fewer deltas of the response wait."""
        if self._deltas.get(response_id, 0) >= deltas:
            await self._until(lambda: self._deltas.get(response_id, 0) < deltas)

    @property
    def full(self) -> bool:
        return len(self._events) >= WAITING_EVENTS

    async def unhurried(self) -> None:
        """Returns when few enough events wait for it to be fair to cause more."""
        await self._until(lambda: not self.full)

    async def _until(self, enough: Callable[[], bool]) -> None:
        while not enough() and not self._closed:
            self._taken.clear()
            await self._taken.wait()

    def _forget(self, response_id: str) -> None:
        left = self._deltas[response_id] - 1
        if left:
            self._deltas[response_id] = left
        else:
            del self._deltas[response_id]

    def close(self) -> None:
        """What waits can still be taken; nothing more can be put."""
        self._closed = True
        self._filled.set()
        self._taken.set()
