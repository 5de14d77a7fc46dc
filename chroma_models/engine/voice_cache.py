"""Keys and values of voice prompts that were prefilled before, so that a voice in use is read once per replica."""

import time
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

# The content itself, not the digest a caller sent: nobody is spoken in a voice he did not give. Transcript, codes.
VoiceKey = tuple[tuple[int, ...], bytes]


class VoiceCache:
    """Least recently used prefixes leave first, and each once it has not been used for idle_s: a voice that is deleted
    is used no more, so nobody has to tell. What it holds is on the engine's device.

    Used from the engine's thread; `in` may be asked from another one.
    """

    def __init__(self, limit_bytes: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_bytes, self._idle_s, self._clock = limit_bytes, idle_s, clock
        self._used_s: dict[VoiceKey, float] = {}  # when, by the clock
        self._kept: OrderedDict[VoiceKey, Tensor] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __contains__(self, key: VoiceKey) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: VoiceKey) -> Tensor | None:
        prefix = self._kept.get(key)
        if prefix is None:
            self.misses += 1
            return None
        self.hits += 1
        self._used_s[key] = self._clock()
        self._kept.move_to_end(key)
        return prefix

    def wants(self, key: VoiceKey, size_bytes: int) -> bool:
        """Is this prefix worth copying out: new, and no larger than the whole cache?"""
        return key not in self._kept and size_bytes <= self._limit_bytes

    def put(self, key: VoiceKey, prefix: Tensor) -> None:
        """Keep a prefix that wants() approved, and let others go for it."""
        if not self.wants(key, prefix.nbytes):
            return
        while self._kept and self.bytes + prefix.nbytes > self._limit_bytes:
            self._drop_oldest()
        self._kept[key] = prefix
        self._used_s[key] = self._clock()
        self.bytes += prefix.nbytes

    def expire(self) -> float | None:
        """Let go of what has not been used for idle_s; returns after how many seconds to ask again, None: not."""
        now = self._clock()
        while self._kept:
            left_s = self._used_s[next(iter(self._kept))] + self._idle_s - now
            if left_s > 0:
                return left_s
            self._drop_oldest()
        return None

    def _drop_oldest(self) -> None:
        key, prefix = self._kept.popitem(last=False)
        del self._used_s[key]
        self.bytes -= prefix.nbytes
