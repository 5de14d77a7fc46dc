"""The few numbers that make one step differ from the last, on the device at fixed addresses, sent in one copy."""

from collections.abc import Sequence

import numpy as np
import torch

from chroma_models.sampling import RowSampling
from chroma_models.types import Sampling


class StepInputs:
    """Room for `rows` rows of up to `segment` tokens. Arrays are the host's, tensors the device's, of equal names.

    How row r draws is what its slot's turn asked for; stepping[r] is 1 where the row steps; words[k] is the token of
    the k-th text step; sources says for each token which embedding it is.
    """

    def __init__(self, rows: int, segment: int, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        count = rows * (6 + segment)
        self._host = torch.zeros(count, dtype=torch.int64, pin_memory=self._cuda)
        self._device = torch.zeros(count, dtype=torch.int64, device=device) if self._cuda else self._host
        self._sent = torch.cuda.Event() if self._cuda else None  # type: ignore[no-untyped-call]
        names = ("temperature", "top_k", "seeds", "indices", "stepping", "words")
        sizes = [rows] * len(names) + [rows * segment]
        arrays = dict(zip((*names, "sources"), np.split(self._host.numpy(), np.cumsum(sizes)[:-1]), strict=True))
        self._drawing = [arrays[name] for name in names[1:4]]
        self._temperature = arrays["temperature"].view(np.float32)[:rows]
        self._stepping = arrays["stepping"]
        self.word_array, self.source_array = arrays["words"], arrays["sources"]
        temperature, self._top_k, self._seeds, self._indices, self.stepping, self.words, self.sources = torch.split(
            self._device, sizes
        )
        self._temperatures = temperature.view(torch.float32)[:rows]

    def sampling(self, rows: int, widest_k: int) -> RowSampling:
        """How the first rows draw, wherever the device's numbers then stand; widest_k -1 is greedy."""
        return RowSampling(
            self._temperatures[:rows],
            self._top_k[:rows],
            self._seeds[:rows],
            self._indices[:rows],
            greedy=widest_k < 0,
            widest_k=max(widest_k, 0),
        )

    def writable(self) -> None:
        """Wait until the device has fetched the last step's numbers."""
        if self._sent is not None:
            self._sent.synchronize()

    def fill(self, slots: np.ndarray, sampling: Sequence[Sampling], frames: Sequence[int]) -> None:
        """Who steps, and how each of them draws."""
        self._stepping[:] = 0
        self._stepping[slots] = 1
        self._temperature[slots] = [each.temperature for each in sampling]
        for kept, given in zip(
            self._drawing, ([s.top_k for s in sampling], [s.seed for s in sampling], frames), strict=True
        ):
            kept[slots] = given

    def clear(self) -> None:
        """Nobody steps, and every token is the first embedding: what a capture begins with."""
        self.writable()
        self._stepping[:] = 0
        self.source_array[:] = 0
        self.send()

    def send(self) -> None:
        """Begin to bring everything to the device."""
        if self._sent is not None:
            self._device.copy_(self._host, non_blocking=True)
            self._sent.record()
