"""What stands in for CUDA's capture of a pass, at the edge of the process."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def rehearsing(work: Callable[[], Tensor], device: torch.device, pool: Any) -> Callable[[], Tensor]:
    """A graph that, as a capture does, begins with runs of the pass."""
    work()
    work()
    return work


class NoCapture:
    """A device on which capture fails once so many graphs were made."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, work: Any, device: torch.device, pool: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("operation not permitted when stream is capturing")
        return work
