"""What Mimi's decoder remembers of each stream: keys and values of a window, and a few inputs per convolution."""

import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape


class StreamState:
    """State of `slots` streams, and the scratch that a pass over them works in.

    ring       float32 [layers, slots, cells, 2, heads, head_dim]: position p is in cell p % cells, keys before values
    histories  one [slots, history, inputs] per convolution, in the order of the decoder
    positions  transformer positions each stream has seen; kept on the host
    """

    def __init__(
        self, shape: CodecShape, sizes: list[tuple[int, int]], slots: int, room: int, device: torch.device
    ) -> None:
        """sizes: (history, inputs) of each convolution; room: positions one pass may write.

        A pass writes its keys before it reads, so the ring holds `room - 1` positions more than a query may see: with
        none to spare, the newest key of a pass would overwrite the oldest one that its first query still needs.
        """
        self.cells = shape.context + room - 1
        size = (shape.layers, slots, self.cells, 2, shape.heads, shape.head_dim)
        self.ring = torch.zeros(size, device=device)
        self.histories = [torch.zeros((slots, *size), device=device) for size in sizes]
        self.positions = [0] * slots
        self._scratch: dict[str, Tensor] = {}

    def reset(self, slots: list[int]) -> None:
        """Make each slot a stream that has not begun."""
        for slot in slots:
            self.ring[:, slot] = 0
            for history in self.histories:
                history[slot] = 0
            self.positions[slot] = 0

    def copy_from(self, slot: int, other: "StreamState") -> None:
        """Put the only stream of another state with as many cells in a slot of this one."""
        self.ring[:, slot] = other.ring[:, 0]
        for history, source in zip(self.histories, other.histories, strict=True):
            history[slot] = source[0]
        self.positions[slot] = other.positions[0]

    def scratch(self, name: str, *size: int) -> Tensor:
        """A contiguous tensor of undefined content. The next call of the same name takes its memory."""
        count = 1
        for n in size:
            count *= n
        flat = self._scratch.get(name)
        if flat is None or flat.numel() < count:
            flat = self._scratch[name] = torch.empty(count, device=self.ring.device)
        return flat[:count].view(size)

    def buffers(self) -> list[Tensor]:
        """The scratch there is."""
        return list(self._scratch.values())
