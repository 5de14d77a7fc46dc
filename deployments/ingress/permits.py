"""Permits of one replica: each stream holds one from before it is accepted until it has ended."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from types import TracebackType

from chroma_models.errors import ChromaError, QuotaExceeded, Unauthenticated
from deployments.ingress.callers import Caller
from deployments.ingress.store.permit_store import PermitStore

log = logging.getLogger(__name__)

SOON_S = 1.0  # until a stream of the tenant may have ended
REVOKED = "The API key is no longer valid: it was revoked, has expired, or its tenant was disabled."


class Permit:
    """Entered by the task of the stream, which a revoked key cancels: the block then raises Unauthenticated."""

    def __init__(self, permits: "Permits", caller: Caller, taken: int | None, until: float) -> None:
        """taken: how many the tenant holds with this one; None where nobody counts. until: unless it is entered."""
        self.id, self.caller, self.taken, self.until = secrets.token_hex(16), caller, taken, until
        self._permits = permits
        self._task: asyncio.Task[object] | None = None
        self._revoked = False

    async def __aenter__(self) -> "Permit":
        await self._permits.entered(self)
        self._task = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
        if self._revoked and kind is asyncio.CancelledError and self._task is not None and self._task.uncancel() == 0:
            raise Unauthenticated(REVOKED) from error

    def give_back(self) -> None:
        """Whoever has it and does not enter it; a second time does nothing."""
        self._permits.given_back(self)

    def revoke(self) -> None:
        if self._task is not None and not self._revoked:
            self._revoked = True
            self._task.cancel()


class Permits:
    """Between open() and close(), renews what is held and ends the streams of keys that nobody may use any more.

    A replica that dies renews nothing, so its permits lapse. What is given back is told to the database soon, all at
    once; where it cannot be told, it lapses too.
    """

    def __init__(
        self,
        store: PermitStore,
        ttl_s: float,
        patience_s: float,
        renew_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """ttl_s: of a permit nobody renews. patience_s: for one that was taken to be entered."""
        self._store, self._ttl_s, self._patience_s, self._renew_s = store, ttl_s, patience_s, renew_s
        self._clock = clock
        self._replica = secrets.token_hex(16)
        self._held: dict[str, Permit] = {}
        self._returned: set[str] = set()
        self._telling = 0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def owing(self) -> int:
        """Given back, and not yet told to the database."""
        return len(self._returned) + self._telling

    async def open(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep(), name="permits-keep")]
            self._tasks.append(asyncio.create_task(self._return(), name="permits-return"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(ChromaError):  # they lapse
            await self._store.give_back(self._returned | set(self._held))

    async def take(self, caller: Caller) -> Permit:
        """To be entered within patience_s, or given back. Raises QuotaExceeded, StageUnavailable."""
        now = self._clock()
        permit = Permit(self, caller, None, now + self._patience_s)
        if caller.share is not None:
            permit.taken = await self._take(permit, now)
        return permit

    async def entered(self, permit: Permit) -> None:
        """For Permit alone: held until it is given back. Raises QuotaExceeded where it has lapsed and none is left."""
        if permit.caller.share is not None and permit.id not in self._held:
            await self._take(permit, self._clock())
        permit.until = float("inf")

    def given_back(self, permit: Permit) -> None:
        """For Permit alone."""
        if self._held.pop(permit.id, None) is not None:
            self._returned.add(permit.id)
            self._wake.set()

    async def _take(self, permit: Permit, now: float) -> int:
        tenant, share = permit.caller.tenant, permit.caller.share
        assert share is not None
        taking = asyncio.ensure_future(self._store.take(tenant, permit.id, self._replica, now, now + self._ttl_s))
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:  # it may be ours by now
            taking.add_done_callback(lambda _: self._give_up(permit.id))
            raise
        if taken is None:
            raise QuotaExceeded(
                f"All {share.streams} streams of this tenant are in use; end one, or ask the operator for more.",
                SOON_S,
                "streams",
            )
        self._held[permit.id] = permit
        return taken

    def _give_up(self, permit_id: str) -> None:
        self._returned.add(permit_id)
        self._wake.set()

    async def _return(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            returned, self._returned = self._returned, set()
            self._telling = len(returned)
            try:
                await self._store.give_back(returned)
            except ChromaError:
                log.error("%d permits could not be given back; they lapse in %g s", len(returned), self._ttl_s)
            self._telling = 0

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            if not self._held:
                continue
            now = self._clock()
            for permit in [permit for permit in self._held.values() if permit.until < now]:
                permit.give_back()
            try:
                await self._store.renew(self._replica, now + self._ttl_s)
                dead = await self._store.dead_keys({permit.caller.key_id for permit in self._held.values()}, now)
            except ChromaError:
                log.error("%d permits could not be renewed", len(self._held))
                continue
            for permit in list(self._held.values()):
                if permit.caller.key_id in dead:
                    permit.revoke()
