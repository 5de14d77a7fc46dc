"""What the audio encoder made of each two seconds of a clip, kept by content."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

KEPT_BLOCKS = 512  # 17 minutes of speech; 200 KB each at full size in bf16


class HeardBlocks:
    """The encoder looks at blocks of block_frames mel frames, each alone (SPEC section 3), so what it made of one holds
    for every clip that has the same features there: the same clip a little longer, or the next turn's history.

    A block is named by its features, after the clip's normalisation. Where a louder moment later in the clip changes
    them, the name changes too, and the block is encoded again: nothing stale is ever found.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], block_frames: int) -> None:
        """encode: float32 [mel bins, frames] -> [rows, hidden]"""
        self._encode, self._block_frames = encode, block_frames
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()
        self.encoded = 0  # whole blocks encoded, and found
        self.found = 0

    def rows(self, features: Tensor) -> Tensor:
        """[rows, hidden] of one clip. Unknown blocks are encoded together, and whole ones kept."""
        blocks = list(torch.split(features, self._block_frames, 1))
        names = [_name(block) if block.shape[1] == self._block_frames else b"" for block in blocks]
        unknown = [i for i, name in enumerate(names) if name not in self._rows]
        made: dict[int, Tensor] = {}
        if unknown:
            encoded = self._encode(torch.cat([blocks[i] for i in unknown], 1))
            whole_rows = self._block_frames // 4  # two halvings: the second convolution's, and the pooling's
            pieces = torch.split(encoded, whole_rows)
            made = dict(zip(unknown, pieces, strict=False))
            if len(pieces) < len(unknown):  # the last block is too short for a row of its own
                made[unknown[-1]] = encoded[:0]
        for i, name in enumerate(names):
            if not name:
                continue
            if i in made:
                self._rows[name] = made[i]
            else:
                made[i] = self._rows[name]
            self._rows.move_to_end(name)
        self.encoded += sum(1 for i in unknown if names[i])
        self.found += len(blocks) - len(unknown)
        while len(self._rows) > KEPT_BLOCKS:
            self._rows.popitem(last=False)
        return torch.cat([made[i] for i in range(len(blocks))])


def _name(block: Tensor) -> bytes:
    return hashlib.blake2b(block.contiguous().numpy().tobytes(), digest_size=16).digest()
