"""The one thing the ingress knows about the graph behind it."""

from collections.abc import AsyncGenerator
from typing import Protocol

from chroma_models.types import Admitted, AudioChunk, Finished, Progress, Turn

Item = Admitted | AudioChunk | Finished


class Speaker(Protocol):
    """Whoever answers turns. Errors are chroma_models.errors; anything else is a fault and told as one."""

    def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Item, None]:
        """Admitted first, audio as it is made, Finished last. An async generator: whoever opens it closes it."""
        ...

    async def encode_voice(self, pcm: bytes) -> bytes:
        """float32 mono samples at 24 kHz -> int16 codes, row-major [frames, 8]."""
        ...
