"""Copies of a checkpoint with its tensors changed, or spread over files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def copy(checkpoint: Path, to: Path, edit: Callable[[Tensors], object] = lambda _: None, shards: int = 1) -> Path:
    """The checkpoint with edit applied to its tensors, in one file or dealt over several."""
    to.mkdir()
    for path in checkpoint.iterdir():
        if not path.name.startswith("model"):
            shutil.copy(path, to)
    tensors = load_file(checkpoint / "model.safetensors")
    edit(tensors)
    if shards == 1:
        save_file(tensors, to / "model.safetensors")
        return to
    weight_map = {name: f"part-{i % shards}.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == shard}, to / shard)
    (to / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return to


def edit_config(checkpoint: Path, edit: Callable[[dict], object]) -> None:
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
