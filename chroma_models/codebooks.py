"""The one embedding table that backbone and depth decoder share: EA in the reference's words."""

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.types import CODEBOOKS


class Codebooks:
    """table [CODEBOOKS * vocab, hidden]; code c of codebook i is row c + i * vocab."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.vocab = table.shape[0] // CODEBOOKS
        self._offsets = torch.arange(CODEBOOKS, device=table.device) * self.vocab

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Sum the eight codebook embeddings of each frame.

        codes   int64 [..., CODEBOOKS], each 0..vocab-1
        returns [..., hidden] in the table's dtype
        Source: the reference's frame embedding, F(frame).
        """
        rows = (codes + self._offsets).view(-1, CODEBOOKS)
        return F.embedding_bag(rows, self.table, mode="sum").view(*codes.shape[:-1], -1)
