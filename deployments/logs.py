"""What replicas say: lines of text or of JSON, progress of long steps, no traceback for what was refused on purpose."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pythonjsonlogger.json import JsonFormatter

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import ChromaError
from deployments.ingress.log_context import About
from deployments.settings import Logs

PROGRESS_S = 5.0
OURS = ("deployments", "chroma_models")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s [request %(request_id)s, tenant %(tenant)s]"
FIELDS = {"levelname": "level", "name": "logger"}  # as Python has them, and as a line of JSON has them
progress = logging.getLogger("deployments.progress")
_START = time.monotonic()


def configure(logs: Logs, stage: str) -> None:
    """For this process, whose stage every line of JSON names. Other libraries are heard from warnings on."""
    handler = logging.StreamHandler()
    handler.addFilter(About())
    if logs.format == "json":
        fields = [*FIELDS, "message", "request_id", "tenant"]
        handler.setFormatter(
            JsonFormatter(fields, rename_fields=FIELDS, static_fields={"stage": stage}, timestamp="time")
        )
    else:
        handler.setFormatter(logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logs.level.upper())
    progress.setLevel(logging.INFO if logs.format == "json" else logging.WARNING)


def report(stage: str) -> Callable[[str], None]:
    """A function that prints one line of a stage's progress, where the operator sees it."""

    def line(message: str) -> None:
        if progress.isEnabledFor(logging.INFO):
            progress.info(message, extra={"started_s_ago": round(time.monotonic() - _START, 1)})
        else:
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
