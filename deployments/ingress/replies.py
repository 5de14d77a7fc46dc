"""What was said under which audio id, for clients that send the id back as history."""

import time
from collections import OrderedDict
from collections.abc import Callable

from deployments.ingress.errors import UnknownReply


class ReplyStore:
    """Transcripts by audio id and tenant: the oldest leave when there are too many, each leaves after its time.

    It lives in one ingress replica. Clients of several should send the transcript itself, which needs no store.
    """

    def __init__(self, capacity: int, ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        self._capacity, self._ttl_s, self._clock = capacity, ttl_s, clock
        self._said: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._said)

    def add(self, tenant: str, audio_id: str, transcript: str) -> int:
        """Returns the Unix second at which it is forgotten."""
        now = self._clock()
        while self._said and (len(self._said) >= self._capacity or next(iter(self._said.values()))[1] <= now):
            self._said.popitem(last=False)
        expires = now + self._ttl_s
        self._said[tenant, audio_id] = (transcript, expires)
        return int(expires)

    def transcript(self, tenant: str, audio_id: str, param: str) -> str:
        """Raises UnknownReply."""
        transcript, expires = self._said.get((tenant, audio_id), ("", 0.0))
        if expires <= self._clock():
            raise UnknownReply(
                f"No reply with audio id '{audio_id[:64]}' is known here; it may have expired. "
                "Send its transcript as text content instead.",
                param,
            )
        return transcript
