"""A random checkpoint that never touches a disk: for benchmarks on shapes whose files would be 10 GB."""

import math
from pathlib import Path

import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.checkpoint.layout import BACKBONE_AUDIO_EMBEDDING, LM_HEAD, TIES, optional_shapes, tensor_shapes
from chroma_models.checkpoint.random import draw, write_configs
from chroma_models.checkpoint.sizes import BLUEPRINTS, Size, config, generation_config
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import CheckpointError
from chroma_models.layers import TensorSource


class RandomWeights:
    """Tensors drawn when asked for: those `chroma make-checkpoint` with the same size and seed writes to its files.

    quick draws a tensor of more than QUICK_ABOVE elements on the device it is wanted on, where that is a GPU, and
    elsewhere from one short tile, so that a full-size model is there in seconds: numbers other than a checkpoint's.
    """

    QUICK_ABOVE = 1 << 20

    def __init__(self, size: Size, seed: int = 0, *, quick: bool = False) -> None:
        self.size, self.seed, self.quick = size, seed, quick
        self.architecture = Architecture.of(config(size), generation_config(size))
        self.tied_lm_head = BLUEPRINTS[size].tied_lm_head
        tied = {BACKBONE_AUDIO_EMBEDDING} | ({LM_HEAD} if self.tied_lm_head else set())
        shapes = tensor_shapes(self.architecture) | optional_shapes(self.architecture)
        self._shapes = {name: shape for name, shape in shapes.items() if name not in tied}

    def names(self, prefix: str) -> list[str]:
        """Full names below a prefix, sorted; ties are left out."""
        return sorted(name for name in self._shapes if name.startswith(f"{prefix.rstrip('.')}."))

    def has(self, name: str) -> bool:
        """Whether tensor(name) would answer, by a tie or by itself."""
        return name in self._shapes or TIES.get(name) in self._shapes

    def tensor(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """One tensor by its full name. Raises CheckpointError for a name that such a checkpoint does not hold."""
        stored = name if name in self._shapes else TIES.get(name, "")
        if stored not in self._shapes:
            raise CheckpointError(f"A {self.size} checkpoint holds no tensor {name}.")
        shape = self._shapes[stored]
        count = math.prod(shape)
        if self.quick and count > self.QUICK_ABOVE and len(shape) > 1:
            if device.type == "cuda":
                return draw(stored, shape, self.size, self.seed, device).to(BLUEPRINTS[self.size].dtype).to(dtype)
            return self._tiled(stored, shape, device, dtype)
        return draw(stored, shape, self.size, self.seed).to(BLUEPRINTS[self.size].dtype).to(device, dtype)

    def _tiled(self, name: str, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        generator = torch.Generator(device).manual_seed(self.seed)
        tensor = torch.empty(shape, dtype=dtype, device=device)
        fan_in = 1 if "embed" in name else shape[1]
        tile = torch.empty(self.QUICK_ABOVE + 7, device=device).normal_(generator=generator)  # odd: rows differ
        flat, tile = tensor.view(-1), (tile / math.sqrt(fan_in)).to(dtype)
        for start in range(0, len(flat), len(tile)):
            part = flat[start : start + len(tile)]
            part.copy_(tile[: len(part)])
        return tensor

    def source(self, prefix: str, device: torch.device, dtype: torch.dtype) -> TensorSource:
        """Tensors by their name below a prefix."""
        root = prefix.rstrip(".")
        return lambda name: self.tensor(f"{root}.{name}", device, dtype)


class RandomCheckpoint(Checkpoint):
    """RandomWeights where a Checkpoint is asked for. The folder holds tokenizer and configs, and no weights."""

    def __init__(self, folder: Path, weights: RandomWeights) -> None:
        """Writes the folder's files."""
        folder.mkdir(parents=True, exist_ok=True)
        write_configs(folder, weights.size)
        self._weights = weights
        super().__init__(folder, weights.architecture, {})

    @property
    def tied_lm_head(self) -> bool:
        return self._weights.tied_lm_head

    def has(self, name: str) -> bool:
        return self._weights.has(name)

    def names(self, prefix: str) -> list[str]:
        return self._weights.names(prefix)

    def tensor(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        found = self._weights.tensor(name, device, dtype)
        self.bytes_read += found.nbytes
        return found

    def _digest(self) -> str:
        return f"random-{self._weights.size}-{self._weights.seed}"
