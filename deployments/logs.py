"""What replicas say: one line of progress per long step, and no traceback for a turn that was refused on purpose."""

import logging
import time
from collections.abc import Callable

from chroma_models.errors import ChromaError

_START = time.monotonic()


def report(stage: str) -> Callable[[str], None]:
    """A function that prints one line of a stage's progress, where the operator sees it."""

    def line(message: str) -> None:
        print(f"[{stage}] {message} ({time.monotonic() - _START:.1f} s)", flush=True)

    return line


def expect_refusals() -> None:
    """Keep Serve's "Request failed" for what was not meant: a typed error is an answer, and is counted as one."""
    logger = logging.getLogger("ray.serve")
    if not any(isinstance(f, _Unexpected) for f in logger.filters):
        logger.addFilter(_Unexpected())


class _Unexpected(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], ChromaError))
