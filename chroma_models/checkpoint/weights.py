"""The weights of a checkpoint: found, checked against the configuration, and read one tensor at a time."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from chroma_models.checkpoint.architecture import Architecture, read_json
from chroma_models.checkpoint.layout import LM_HEAD, TIES, UNUSED, Shapes, optional_shapes, tensor_shapes
from chroma_models.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
SHOWN = 10  # names listed per kind of defect
SAMPLES, SAMPLE_BYTES = 4, 1024  # of each tensor, in the digest


class Checkpoint:
    """A folder that proved to hold every tensor its config.json asks for, and no other.

    Files stay mapped: opening one of any size reads the headers and the digest's samples. digest is 16 hex digits over
    config.json, generation_config.json, every tensor's name, dtype and shape, and up to SAMPLES x SAMPLE_BYTES of its
    bytes; how tensors are spread over files does not count. It tells checkpoints apart and proves nothing to an enemy.
    """

    def __init__(self, folder: Path, architecture: Architecture, files: dict[str, Any]) -> None:
        self.folder = folder
        self.architecture = architecture
        self._files = files  # by tensor name: the open safetensors file that holds it
        self.digest = self._digest()
        self.bytes_read = 0  # by tensor(), for whoever shows progress

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Raises CheckpointError for an absent or cut-off file, and for missing, leftover or misshapen tensors."""
        architecture = Architecture.read(folder)
        files = _open_files(folder)
        try:
            _check(folder, architecture, files)
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / 'config.json'} is not a Chroma config: {error!r}.") from error
        return cls(folder, architecture, files)

    @property
    def tied_lm_head(self) -> bool:
        """The Reasoner's head is its embedding. The files decide; published configs contradict themselves."""
        return LM_HEAD not in self._files

    def has(self, name: str) -> bool:
        """Whether tensor(name) would answer, by a tie or by itself."""
        return name in self._files or TIES.get(name) in self._files

    def names(self, prefix: str) -> list[str]:
        """Full names of the stored tensors below a prefix, sorted; ties and the vision tower are left out."""
        return sorted(name for name in self._files if name.startswith(f"{prefix.rstrip('.')}."))

    def tensor(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """One tensor by its full name. On a CPU, in the stored dtype, it may be the mapped file: never write to it.

        Raises CheckpointError for a name that is neither stored nor tied to a stored one.
        """
        file = self._files.get(name)
        if file is None:
            tied = TIES.get(name, "")
            if tied not in self._files:
                raise CheckpointError(f"{self.folder} holds no tensor {name}.")
            name, file = tied, self._files[tied]
        try:
            stored: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{name} cannot be read from {self.folder}: {error}.") from error
        self.bytes_read += stored.nbytes
        return stored.to(device=device, dtype=dtype)

    def source(self, prefix: str, device: torch.device, dtype: torch.dtype) -> Callable[[str], Tensor]:
        """Tensors by their name below a prefix: source("backbone.model", ...)("norm.weight")."""
        root = prefix.rstrip(".")
        return lambda name: self.tensor(f"{root}.{name}", device, dtype)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for config in (self.architecture.raw, self.architecture.generation):
            digest.update(json.dumps(config, sort_keys=True).encode())
        for name in sorted(self._files):
            tensor: Tensor = self._files[name].get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content = tensor.reshape(-1).view(torch.uint8)
            stride = max(SAMPLE_BYTES, len(content) // SAMPLES)
            for start in range(0, min(len(content), stride * SAMPLES), stride):
                digest.update(content[start : start + SAMPLE_BYTES].numpy().tobytes())
        return digest.hexdigest()[:16]


def shards_of(index: Path) -> list[str]:
    """Files that an index names for anything but the vision tower. Raises CheckpointError."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index} holds no weight_map of tensor names to files.")
    return sorted({shard for name, shard in weight_map.items() if not name.startswith(UNUSED)})


def _open_files(folder: Path) -> dict[str, Any]:
    """Every tensor but the vision tower's, with the open file that holds it. Reads headers only."""
    if (folder / SINGLE).exists():
        shards = [SINGLE]
    elif (folder / INDEX).exists():
        shards = shards_of(folder / INDEX)
    else:
        raise CheckpointError(f"{folder} holds neither {SINGLE} nor {INDEX}: is this a Chroma checkpoint?")
    files: dict[str, Any] = {}
    for shard in shards:
        file = _open_file(folder / shard)
        names = {name for name in file.keys() if not name.startswith(UNUSED)}  # noqa: SIM118  not a mapping
        if twice := sorted(names & files.keys()):
            raise CheckpointError(f"{folder} holds {len(twice)} tensors in two files: {_some(twice)}.")
        files |= dict.fromkeys(names, file)
    return files


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the download is not complete, fetch it again.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is cut short or is no safetensors file ({error}): fetch the checkpoint again, "
            "or run `git lfs pull` where git made the copy."
        ) from error


def _check(folder: Path, architecture: Architecture, files: dict[str, Any]) -> None:
    """Compares what the files hold with what the configuration says."""
    required = tensor_shapes(architecture)
    known: Shapes = required | optional_shapes(architecture)
    absent = [name for name in required if name not in files and TIES.get(name) not in files]
    leftover = sorted(name for name in files if name not in known)
    wrong = []
    for name in sorted(known.keys() & files.keys()):
        stored = files[name].get_slice(name)
        shape, dtype = tuple(stored.get_shape()), stored.get_dtype()
        if shape != known[name]:
            wrong.append(f"{name} {list(shape)} instead of {list(known[name])}")
        elif name in required and dtype not in FLOATS:
            wrong.append(f"{name} stored as {dtype}, not as a plain float")
    defects = {"missing": absent, "leftover": leftover, "wrongly shaped": wrong}
    found = [f"{len(names)} {kind}: {_some(names)}" for kind, names in defects.items() if names]
    if found:
        raise CheckpointError(f"The tensors in {folder} are not what its config.json says. {'. '.join(found)}.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
