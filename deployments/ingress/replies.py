"""What was said under which audio id, for clients that send the id back as history, where a tenant wants that."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TLRUCache

from deployments.ingress.callers import Caller
from deployments.ingress.config import IngressConfig
from deployments.ingress.errors import UnknownReply

SURELY_S = 0.1  # after the end of its time, a reply is looked for


def retention_s(caller: Caller, config: IngressConfig) -> float:
    """How long words of a caller's replies may be kept: what its tenant's share says, and the server's setting where
    nobody has a share."""
    return config.retention_s if caller.share is None else float(caller.share.retention_s)


@dataclass(frozen=True, slots=True)
class _Kept:
    transcript: str
    expires_s: float  # by the clock


class ReplyStore:
    """Transcripts by audio id and tenant: the least recently used leave when there are too many, each after its time,
    whether anybody asks for it or not.

    It lives in one ingress replica's memory. Clients of several should send the transcript itself: no store is needed.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: TLRUCache[tuple[str, str], _Kept] = TLRUCache(capacity, lambda _, kept, __: kept.expires_s, clock)

    def __len__(self) -> int:
        return len(self._said)

    def add(self, tenant: str, keep_s: float, audio_id: str, transcript: str) -> int:
        """keep_s: 0 keeps nothing. Returns the Unix second at which it is forgotten."""
        if keep_s > 0:
            self._said[tenant, audio_id] = _Kept(transcript, self._clock() + keep_s)
            asyncio.get_running_loop().call_later(keep_s + SURELY_S, self.expire)
        return int(time.time() + keep_s)

    def expire(self) -> None:
        self._said.expire()

    def transcript(self, tenant: str, audio_id: str, param: str) -> str:
        """Raises UnknownReply."""
        kept = self._said.get((tenant, audio_id))
        if kept is None:
            raise UnknownReply(
                f"No reply with audio id '{audio_id[:64]}' is kept here: replies are forgotten at once where nobody "
                "said for how long they are kept. Send its transcript as text content instead.",
                param,
            )
        return kept.transcript
