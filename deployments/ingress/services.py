"""What every protocol shares in one ingress replica."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TypeVar

from chroma_models.errors import ChromaError, Overloaded
from chroma_models.interleave import FRAMES_PER_PAIR
from chroma_models.types import Admitted, Limits, Sampling, Turn
from deployments.ingress.api_key import KeyHash, pepper
from deployments.ingress.callers import Caller, Callers
from deployments.ingress.config import IngressConfig
from deployments.ingress.health import Health
from deployments.ingress.json_body import BodyReader
from deployments.ingress.permits import Permit, Permits
from deployments.ingress.provenance.statement import Provenance
from deployments.ingress.refusals import Refusals
from deployments.ingress.replies import ReplyStore
from deployments.ingress.reply_log import tell
from deployments.ingress.session.vad import Vad
from deployments.ingress.speaker import Item, Speaker
from deployments.ingress.store.address import database_url
from deployments.ingress.store.database import Database
from deployments.ingress.store.permit_store import PermitStore
from deployments.ingress.store.tenant_store import TenantStore
from deployments.ingress.store.usage_store import UsageStore
from deployments.ingress.store.voice_store import VoiceStore
from deployments.ingress.turns import TurnBuilder, watch
from deployments.ingress.usage import Ledger
from deployments.ingress.voices import VoiceBook
from deployments.ingress.watermark import Marker, load

T = TypeVar("T")

SEEDS = (1 << 63) - 1


class Services:
    """Built once per replica. `config` is the live one: read it when a turn begins, do not keep it."""

    def __init__(self, speaker: Speaker, config: IngressConfig, default_sampling: Sampling) -> None:
        """Raises InvalidRequest where a signing key or a watermark cannot be used."""
        self.speaker, self.config, self.default_sampling = speaker, config, default_sampling
        watermark = None if config.watermark is None else load(config.watermark)
        self.marker = None if watermark is None else Marker(watermark)
        self.provenance = Provenance(config, None if watermark is None else watermark.name)
        self.health = Health()
        self.refusals = Refusals()
        self.pool = ThreadPoolExecutor(config.audio.threads, thread_name_prefix="audio")
        self.database = Database(config.database_url, config.database_timeout_s)
        self.store = VoiceStore(self.database)
        self.tenants = TenantStore(self.database)
        self.callers = Callers(config, self.tenants)
        self.permits = Permits(
            PermitStore(self.database), config.permit_ttl_s, config.body_timeout_s, config.permit_renew_s
        )
        self.usage = UsageStore(self.database)
        self.ledger = Ledger(self.usage, config.usage_flush_s, config.usage_lost_s)
        self.ledger.ended = tell
        self.voices = VoiceBook(speaker, config, self.pool, self.store)
        self.bodies = BodyReader(config)
        self.turns = TurnBuilder(config)
        self.replies = ReplyStore(config.replies)
        self.vad = Vad(config.vad)
        self._running = 0

    def reconfigure(self, config: IngressConfig) -> None:
        """Turns that begin from now on live by these limits."""
        self.config = self.voices.config = config

    async def open(self) -> None:
        """What has to be there before a request is taken. Raises UnusableDatabase, InvalidRequest."""
        await self.database.open()
        if self.config.auth:
            self.callers.open(await self.off_loop(self.key_hash))
        await self.permits.open()
        await self.ledger.open()

    def key_hash(self) -> KeyHash:
        """Blocking. Raises InvalidRequest."""
        return KeyHash(pepper(self.config.key_secret, database_url(self.config.database_url)))

    async def close(self) -> None:
        self.voices.close()
        await self.ledger.close()
        await self.permits.close()
        await self.database.close()
        self.vad.close()
        if self.marker is not None:
            self.marker.close()
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Runs work in a thread, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    @property
    def running(self) -> int:
        """Turns that hold a place."""
        return self._running

    def check_room(self) -> None:
        """Raises Overloaded where place() would: before a body is read or a socket accepted."""
        if self._running >= self.config.max_concurrent:
            raise Overloaded("Too many replies are being spoken; please try again.", 1.0)

    async def permit(self, caller: Caller) -> Permit:
        """For one stream, before it is accepted: to be entered, or given back. Raises QuotaExceeded."""
        await self.ledger.check(caller)
        return await self.permits.take(caller)

    @contextmanager
    def place(self) -> Iterator[None]:
        """One running turn, whatever the protocol. Raises Overloaded beyond max_concurrent."""
        self.check_room()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    @asynccontextmanager
    async def admitted(self, turn: Turn) -> AsyncIterator[tuple[Admitted, AsyncGenerator[Item, None]]]:
        """A turn's first item, and those after it up to and with Finished (turns.watch), closed as the block ends.

        Raises what keeps the turn from being admitted.
        """
        async with aclosing(watch(self.speaker, turn, self.config)) as items:
            first = await anext(items)
            if not isinstance(first, Admitted):
                raise ChromaError(f"The stream of turn {turn.id} began with {type(first).__name__}.")
            self.health.fingerprint = first.fingerprint
            if self.marker is None:
                yield first, items
                return
            async with aclosing(self.marker.marked(turn.id, items)) as marked:
                yield first, marked

    def sampling(
        self,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        text_temperature: float | None = None,
    ) -> Sampling:
        """The checkpoint's defaults but for what the request says; a seed is drawn where it names none."""
        default = self.default_sampling
        return Sampling(
            seed=secrets.randbits(63) if seed is None else seed & SEEDS,
            temperature=default.temperature if temperature is None else temperature,
            top_k=default.top_k if top_k is None else top_k,
            text_temperature=default.text_temperature if text_temperature is None else text_temperature,
        )

    def limits(self, max_reply_s: float | None = None, max_text_tokens: int | None = None) -> Limits:
        """What the request asks for, within what this server allows."""
        most_s, most_tokens = self.config.max_reply_s, self.config.max_text_tokens
        limits = Limits(min(most_s if max_reply_s is None else max_reply_s, most_s))
        spoken = -(-limits.max_frames // FRAMES_PER_PAIR)  # the Reasoner need not think what nobody will hear
        return replace(limits, max_text_tokens=min(max_text_tokens or most_tokens, most_tokens, spoken))
