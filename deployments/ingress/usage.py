"""What responses use, written down while they are made: a row from their first moment, whatever becomes of them."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from opentelemetry.trace import INVALID_SPAN, Span

from chroma_models.errors import ChromaError, QuotaExceeded
from chroma_models.types import FRAMES_PER_S, Audio, Message, Turn
from deployments.ingress import reply_span
from deployments.ingress.callers import Caller
from deployments.ingress.errors import body_of, is_fault, wire_of
from deployments.ingress.log_context import REQUEST
from deployments.ingress.spoken import Spoken
from deployments.ingress.store.tenant_tables import RUNNING
from deployments.ingress.store.usage_store import DAY_S, MINUTE_S, Row, UsageStore, window_begin

log = logging.getLogger(__name__)

FRESH_S = 1.0  # what was spent is believed for so long
MOST_WAITING = 100_000  # rows of ended responses, while the database does not answer; then the oldest are lost
REAP_S = 10.0


Protocol = Literal["chat", "realtime", "grpc"]


@dataclass
class Record:
    """One response. delivered_frames: what the client was given, read again and again while it grows."""

    id: str
    caller: Caller
    protocol: Protocol
    model: str
    voice: str
    spoken: Spoken
    delivered_frames: Callable[[], int]
    started_at: float
    heard_s: float = 0.0
    prompt_tokens: int = 0
    outcome: str = RUNNING
    ended_at: float | None = None
    written_at: float = 0.0
    counted_frames: int = 0  # of delivered ones, in their tenant's windows already
    live: bool = False  # somebody listens while it is spoken
    span: Span = INVALID_SPAN

    @property
    def spoken_s(self) -> float:
        """Delivered."""
        return self.delivered_frames() / FRAMES_PER_S

    def hears(self, messages: tuple[Message, ...]) -> None:
        """Audio that this turn brings along: what was said since the last reply."""
        self.heard_s = 0.0
        for message in reversed(messages):
            if message.role == "assistant":
                break
            self.heard_s += sum(part.seconds for part in message.parts if isinstance(part, Audio))

    def traced(self, turn: Turn) -> Turn:
        """The turn, as part of this response's trace."""
        return reply_span.within(self.span, turn)

    def told(self) -> dict[str, reply_span.Value | None]:
        """What its span says at the end. Not a word of what was said, and not whose it is."""
        spoken, finished = self.spoken, self.spoken.finished
        return {
            "chroma.outcome": self.outcome,
            "chroma.audio_s": self.spoken_s,
            "chroma.first_audio_s": spoken.first_audio_s,
            "chroma.rtf": spoken.rtf,
            "chroma.underruns": spoken.playback.underruns if self.live else None,
            "chroma.losses": finished.losses if finished else None,
        }

    def row(self, now: float) -> Row:
        spoken, finished = self.spoken, self.spoken.finished
        report = spoken.report(0, False)
        return {
            "id": self.id,
            "tenant": self.caller.tenant,
            "key_id": self.caller.key_id,
            "protocol": self.protocol,
            "model": self.model,
            "voice": self.voice[:48],
            "started_at": self.started_at,
            "touched_at": self.ended_at or now,
            "ended_at": self.ended_at,
            "outcome": self.outcome,
            "heard_s": self.heard_s,
            "spoken_s": self.spoken_s,
            "prompt_tokens": finished.usage.prompt_tokens if finished else self.prompt_tokens,
            "text_tokens": finished.usage.text_tokens if finished else spoken.text_tokens,
            "first_audio_s": report["first_audio_s"],
            "rtf": report["rtf"],
        }


class Ledger:
    """Between open() and close(), a task of its own writes; who speaks never waits for it.

    What began or ended is written at once, together with all that did meanwhile; what lives is touched every flush_s.
    """

    def __init__(
        self, store: UsageStore, flush_s: float, lost_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._flush_s, self._lost_s, self._clock = store, flush_s, lost_s, clock
        self._live: dict[str, Record] = {}
        self._changed: dict[str, Record] = {}  # began or ended since the last write
        self._spent: dict[str, tuple[float, tuple[float, float]]] = {}  # by tenant: when it was read, minute and day
        self.ended: Callable[[Record], None] = lambda record: None  # called with every response that has
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reaped_at = 0.0

    async def open(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="usage")

    async def close(self) -> None:
        """Writes what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            await self._write()

    @contextmanager
    def response(
        self, response_id: str, caller: Caller, protocol: Protocol, model: str, voice: str, spoken: Spoken
    ) -> Iterator[Record]:
        """One response, while the block runs; how the block ends is its outcome."""
        record = Record(
            response_id, caller, protocol, model, voice, spoken, lambda: spoken.frames, started_at=self._clock()
        )
        about = {
            "chroma.response_id": response_id,
            "chroma.protocol": protocol,
            "chroma.request_id": REQUEST.get() or "",
        }
        record.span = reply_span.begin("reply", reply_span.PARENT.get(), about)
        self._live[record.id] = record
        self._tell(record)
        outcome, fault = "completed", None
        try:
            yield record
        except Exception as error:
            outcome = "internal_error" if is_fault(error) else str(body_of(error, "")["error"]["code"])
            fault = outcome if wire_of(error).http >= 500 else None
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            cut = spoken.finished is not None and spoken.finished.reason != "end_of_speech"
            record.outcome = "incomplete" if outcome == "completed" and cut else outcome
            record.ended_at = self._clock()
            del self._live[record.id]
            self._tell(record)
            self.ended(record)
            reply_span.end(record.span, fault, record.told())

    async def check(self, caller: Caller) -> None:
        """Raises QuotaExceeded where the tenant has heard what it may in this minute or day."""
        share = caller.share
        if share is None or (share.audio_s_per_minute is None and share.audio_s_per_day is None):
            return
        spent = await self.spent(caller.tenant)
        now = self._clock()
        quotas = ((MINUTE_S, "minute", share.audio_s_per_minute), (DAY_S, "day", share.audio_s_per_day))
        for (window_s, name, most), used in zip(quotas, spent, strict=True):
            if most is not None and used >= most:
                left_s = window_begin(now, window_s) + window_s - now
                raise QuotaExceeded(
                    f"This tenant has heard the {most:g} s of audio that it may in a {name}; "
                    f"it may again in {left_s:.0f} s.",
                    left_s,
                    f"audio_s_per_{name}",
                )

    async def spent(self, tenant: str) -> tuple[float, float]:
        """Seconds delivered in this minute and this day, by all replicas, as of some seconds ago."""
        now = self._clock()
        known = self._spent.get(tenant)
        if known is None or now - known[0] > FRESH_S:
            if len(self._spent) > MOST_WAITING:
                self._spent.clear()
            known = self._spent[tenant] = (now, await self._store.spent(tenant, now))
        return known[1]

    def _tell(self, record: Record) -> None:
        self._changed[record.id] = record
        self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._wake.wait()
            self._wake.clear()
            await self._write()
            if self._clock() - self._reaped_at > REAP_S:
                await self._reap()

    async def _write(self) -> None:
        changed, self._changed = self._changed, {}
        now = self._clock()
        due = {name: one for name, one in self._live.items() if not 0 <= now - one.written_at < self._flush_s}
        records = {**due, **changed}
        if not records:
            return
        counted = {record.id: record.delivered_frames() for record in records.values()}
        rows, spent = [record.row(now) for record in records.values()], defaultdict[tuple[str, int, int], float](float)
        for record in records.values():
            new = counted[record.id] - record.counted_frames
            for window_s in (MINUTE_S, DAY_S) if new else ():
                spent[record.caller.tenant, window_s, window_begin(now, window_s)] += new / FRAMES_PER_S
        try:
            await self._store.write(rows, spent)
        except ChromaError:
            log.error("usage of %d responses could not be written; it is tried again", len(records))
            self._changed = {**changed, **self._changed}
            for record_id in list(self._changed)[: max(0, len(self._changed) - MOST_WAITING)]:
                log.error("usage of response %s is lost", record_id)
                del self._changed[record_id]
            await asyncio.sleep(self._flush_s)
            return
        for record in records.values():
            record.counted_frames, record.written_at = counted[record.id], now

    async def _reap(self) -> None:
        self._reaped_at = self._clock()
        try:
            lost = await self._store.close_lost(self._clock(), self._lost_s)
        except ChromaError:
            return  # the next write says that the database does not answer
        if lost:
            log.warning("%d responses ended with their replica", lost)
