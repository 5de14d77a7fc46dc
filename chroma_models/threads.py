"""How many intra-op threads a piece of work is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_SHARING = 400_000  # multiply-adds of the widest product, below which handing parts to threads costs more


@contextmanager
def threads_for(work: int, device: torch.device) -> Iterator[None]:
    """One intra-op thread for small work on a CPU: waking another takes longer, much longer on busy cores."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or work >= WORTH_SHARING:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
