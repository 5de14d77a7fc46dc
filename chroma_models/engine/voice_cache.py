"""Keys and values of voice prompts that were prefilled before, so that a voice is read once per replica."""

from collections import OrderedDict

from torch import Tensor

# The content itself, not the digest a caller sent: nobody is spoken in a voice he did not give. Transcript, codes.
VoiceKey = tuple[tuple[int, ...], bytes]


class VoiceCache:
    """Least recently used prefixes leave first. What it holds is on the engine's device.

    Used from the engine's thread; `in` may be asked from another one.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
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
            self.bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[key] = prefix
        self.bytes += prefix.nbytes
