"""Long steps say what they are doing, one line each, where the operator sees them."""

import time
from collections.abc import Callable

_START = time.monotonic()


def report(stage: str) -> Callable[[str], None]:
    """A function that prints one line of a stage's progress."""

    def line(message: str) -> None:
        print(f"[{stage}] {message} ({time.monotonic() - _START:.1f} s)", flush=True)

    return line
