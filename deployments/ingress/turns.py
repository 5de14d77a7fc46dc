"""Turns, whatever the protocol: how one is built, and how its stream is watched."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator
from hashlib import blake2b
from typing import Literal

from chroma_models.errors import StageUnavailable, TurnTimeout
from chroma_models.types import (
    FAST_PRIORITY,
    Admitted,
    AudioChunk,
    EncodedVoice,
    FairShare,
    Finished,
    Limits,
    Message,
    Sampling,
    Turn,
)
from deployments.ingress.callers import Caller
from deployments.ingress.config import IngressConfig
from deployments.ingress.patience import Patience
from deployments.ingress.speaker import Item, Speaker
from deployments.ingress.unhurried import unhurried

Pace = Literal["realtime", "fast"]
PRIORITY: dict[Pace, int] = {"realtime": 0, "fast": FAST_PRIORITY}  # lower goes first, as vLLM counts


class TurnBuilder:
    """Builds turns whose affinity tells neither tenant nor session to anybody without the key."""

    def __init__(self, config: IngressConfig) -> None:
        key = config.affinity_key.encode() if config.affinity_key else secrets.token_bytes(32)
        self._key = blake2b(key).digest()  # 64 bytes, as blake2b wants at most

    def affinity(self, tenant: str, session: str) -> str:
        words = tenant.encode()
        text = len(words).to_bytes(8, "little") + words + session.encode()
        return blake2b(text, key=self._key, digest_size=16).hexdigest()

    def build(
        self,
        caller: Caller,
        session: str,
        messages: tuple[Message, ...],
        voice: EncodedVoice,
        sampling: Sampling,
        limits: Limits,
        pace: Pace,
        deadline_s: float,
    ) -> Turn:
        """The tenant's priority moves the turn among those of its pace."""
        share = caller.share
        return Turn(
            id=uuid.uuid4().hex,
            affinity=self.affinity(caller.tenant, session),
            messages=messages,
            voice=voice,
            sampling=sampling,
            limits=limits,
            pace=pace,
            priority=PRIORITY[pace] + (share.priority if share else 0),
            share=FairShare(self.affinity(caller.tenant, ""), share.weight if share else 1.0),
            deadline_s=deadline_s,
        )


async def watch(speaker: Speaker, turn: Turn, config: IngressConfig) -> AsyncGenerator[Item, None]:
    """A turn's items up to and with Finished, each within its named limit; the stream behind is always closed.

    Raises StageUnavailable where the stream falls silent or ends early, TurnTimeout where the turn outlives
    first_audio_timeout_s or max_turn_s, and whatever the stream raises. Time a caller takes between items counts
    for those two alone. Close it with aclose().
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    silent = StageUnavailable("The speech service did not take the turn in time; please try again.", 1.0)
    patience_s = config.admission_s
    late: tuple[float, str] | None = (
        began + config.first_audio_timeout_s,
        f"No audio came within {config.first_audio_timeout_s:g} s.",
    )
    end = (began + config.max_turn_s, f"The turn took longer than {config.max_turn_s:g} s.")
    stream, patience = unhurried(speaker, turn, config), Patience()
    try:
        while True:
            limit = min(late, end) if late else end
            silent_at = clock() + patience_s
            try:
                item = await patience.until(min(limit[0], silent_at), anext(stream))
            except TimeoutError:
                raise silent if silent_at < limit[0] else TurnTimeout(limit[1]) from None
            except StopAsyncIteration:
                raise StageUnavailable("The speech service stopped in the middle of the turn.", 1.0) from None
            if isinstance(item, Admitted):
                patience_s = 2 * config.stall_timeout_s  # the reader behind notices earlier, and goes elsewhere
                silent = StageUnavailable("The speech service fell silent in the middle of the turn.", 1.0)
            elif isinstance(item, AudioChunk) and item.frames:
                late = None
            yield item
            if isinstance(item, Finished):
                return
    finally:
        patience.close()
        await stream.aclose()
