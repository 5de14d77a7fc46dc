"""How many streams were turned away at the door, before a response of theirs began."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chroma_models.errors import ChromaError, Overloaded, QuotaExceeded, StageUnavailable

TURNED_AWAY = (Overloaded, QuotaExceeded, StageUnavailable)  # there was nothing wrong with what they asked for


class Refusals:
    """Counts by protocol and by the error's code, both of which are few."""

    def __init__(self) -> None:
        self.counts = Counter[tuple[str, str]]()

    def count(self, protocol: str, error: Exception) -> None:
        if isinstance(error, TURNED_AWAY):
            self.counts[protocol, error.code] += 1

    @contextmanager
    def counted(self, protocol: str) -> Iterator[None]:
        """What the block raises is counted, and raised."""
        try:
            yield
        except ChromaError as error:
            self.count(protocol, error)
            raise
