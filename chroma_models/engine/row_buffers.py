"""How the rows of a pass draw, kept where a captured pass reads it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from chroma_models.sampling import RowSampling

WIDEST_K = 64  # top-k up to this has a graph of its own; anything above sorts the vocabulary


@dataclass
class RowBuffers:
    """How each row draws, on the device at fixed addresses."""

    rows: int
    device: torch.device
    floats: Tensor = field(init=False)
    ints: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.floats = torch.zeros(self.rows, device=self.device)
        self.ints = torch.zeros((3, self.rows), dtype=torch.int64, device=self.device)

    def sampling(self, rows: int, widest_k: int) -> RowSampling:
        """A view of the buffers' first rows; widest_k -1 is greedy."""
        top_k, seeds, indices = self.ints[:, :rows].unbind()
        return RowSampling(self.floats[:rows], top_k, seeds, indices, greedy=widest_k < 0, widest_k=max(widest_k, 0))

    def begin_with(self, sampling: RowSampling) -> None:
        """Put the rows of a batch in the first rows."""
        rows = len(sampling.temperature)
        self.floats[:rows].copy_(sampling.temperature)
        for kept, given in zip(self.ints, (sampling.top_k, sampling.seeds, sampling.indices), strict=True):
            kept[:rows].copy_(given)


def widest(greedy: bool, widest_k: int, vocab: int) -> int:
    """Which of the passes draws for rows of these: -1 greedy, else how many of the best logits it looks at."""
    if greedy:
        return -1
    return WIDEST_K if widest_k <= min(WIDEST_K, vocab) else vocab
