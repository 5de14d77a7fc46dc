"""What replicas say: one line of progress per long step, and no traceback for a turn that was refused on purpose."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import ChromaError

PROGRESS_S = 5.0
_START = time.monotonic()


def report(stage: str) -> Callable[[str], None]:
    """A function that prints one line of a stage's progress, where the operator sees it."""

    def line(message: str) -> None:
        print(f"[{stage}] {message} ({time.monotonic() - _START:.1f} s)", flush=True)

    return line


@contextmanager
def loading(say: Callable[[str], None], checkpoint: Checkpoint) -> Iterator[None]:
    """Says that weights are being loaded, and how many were, every few seconds until they are."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_S):
            say(f"loading weights: {checkpoint.bytes_read / 1e9:.2f} GB read")

    say("loading weights")
    teller = threading.Thread(target=tell, name="loading", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()


def expect_refusals() -> None:
    """Keep Serve's "Request failed" for what was not meant: a typed error is an answer, and is counted as one."""
    logger = logging.getLogger("ray.serve")
    if not any(isinstance(f, _Unexpected) for f in logger.filters):
        logger.addFilter(_Unexpected())


class _Unexpected(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], ChromaError))
