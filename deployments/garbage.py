"""Garbage collection, for a process that answers within milliseconds."""

import gc

YOUNG = 20_000  # objects between two looks at the youngest; a look at hundreds of streams' frees nothing


def settle() -> None:
    """What has been built by now is there for good: full collections need not walk it, which would halt every stream
    for a tenth of a second or more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
