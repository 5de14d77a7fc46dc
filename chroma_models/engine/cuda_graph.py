"""Passes of fixed shapes on fixed memory: captured as CUDA graphs where there is CUDA, ordinary calls elsewhere."""

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)
_capturing = threading.Lock()  # a capture begins by waiting for the whole device, which nobody may while one is on
Progress = Callable[[int, int], None]  # told (graphs made, of how many)


def wants_static(kind: Literal["auto", "eager", "static"], device: torch.device) -> bool:
    """auto: passes of fixed shapes where CUDA can capture them, ordinary calls elsewhere."""
    return kind == "static" or (kind == "auto" and device.type == "cuda")


def buckets(rows: int) -> list[int]:
    """Batch sizes that have a graph: powers of two up to 32, then steps of 32 to 256 and of 128 beyond."""
    sizes = [1, 2, 4, 8, 16, 32, *range(64, 257, 32), *range(384, max(rows, 384) + 1, 128)]
    return [*(size for size in sizes if size < rows), rows]


def fitting(sizes: Sequence[int], wanted: int) -> int:
    """The smallest size that holds so many."""
    return next(size for size in sizes if size >= wanted)


def announce(stage: str) -> Progress:
    """Tell the operator of every sixteenth graph, and of the last."""

    def tell(done: int, of: int) -> None:
        if done % 16 == 0 or done == of:
            print(f"[{stage}] captured {done} of {of} graphs", flush=True)

    return tell


def graph_pool(device: torch.device) -> Any:
    """Memory that graphs share, each using it while it runs; None without CUDA."""
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None


class Graph:
    """A pass, captured on a CUDA device; called again and again, on the memory it was captured on."""

    def __init__(self, work: Callable[[], Tensor], device: torch.device, pool: Any) -> None:
        self._work = work
        self.output: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            # A capture is on the current device, wherever its tensors are.
            with _capturing, torch.cuda.device(device):
                self._capture(pool)

    def _capture(self, pool: Any) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries choose their kernels and workspaces before the capture
                self._work()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # What other threads do on the device is theirs: a capture is of this thread's work alone.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.output = self._work()

    def __call__(self) -> Tensor:
        """What the pass returns: on CUDA the same memory every time."""
        if self._graph is None or self.output is None:
            return self._work()
        self._graph.replay()
        return self.output


class Graphs:
    """The graphs of one stage by what sets their shapes, made when first asked for. After a capture that failed there
    are none: whoever asks makes ordinary calls."""

    def __init__(self, stage: str, device: torch.device) -> None:
        self._stage, self._device = stage, device
        self._pool = graph_pool(device)
        self._made: dict[Hashable, Graph] = {}
        self.failed = False

    def __len__(self) -> int:
        return len(self._made)

    def get(self, key: Hashable, work: Callable[[], Tensor]) -> Graph | None:
        """The graph of a key, of work() when it is new; None once a capture has failed, which the log tells of."""
        if self.failed:
            return None
        if key not in self._made:
            try:
                self._made[key] = Graph(work, self._device, self._pool)
            except Exception as error:
                log.error("graph capture failed; the %s goes on with plain calls", self._stage, exc_info=error)
                self.failed = True
                self._made.clear()  # their memory is wanted elsewhere
                return None
        return self._made[key]
