"""Random checkpoints in the published layout, for everything that asks how the system behaves, not what it says.

What comes out of one:
- activations, logits and greedy margins of the size trained models have, so float32 and bf16 runs mean something;
- audio is noise at an audible level (rms about 0.02 to 0.2), neither silent nor clipped;
- the Reasoner speaks words of the tokenizer's vocabulary. Special tokens are almost never chosen, except im_end, which
  takes a few percent of the steps: a text is some seconds long, now and then it has no end of its own;
- speech does not end by itself: that takes seven codes of one frame to be 0. Replies run to the caller's limit;
- the three ids above the codes are as likely as any code, so code that forgets to mask them fails.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.checkpoint.layout import (
    BACKBONE_AUDIO_EMBEDDING,
    LM_HEAD,
    TEXT_EMBEDDING,
    Shapes,
    optional_shapes,
    tensor_shapes,
)
from chroma_models.checkpoint.sizes import BLUEPRINTS, Size, config, generation_config, preprocessor_config
from chroma_models.checkpoint.tokenizer import BYTES, make_tokenizer, special_ids
from chroma_models.checkpoint.weights import INDEX, SINGLE
from chroma_models.errors import CheckpointError
from chroma_models.types import CODEBOOKS

UPSAMPLING = re.compile(r"^codec_model\.(upsample|decoder\.layers\.(2|5|8|11))\.conv\.weight$")

GAINS = (  # the first that matches
    (r"embed_audio_tokens", 1 / math.sqrt(CODEBOOKS)),  # a frame, the sum of eight, has deviation 1
    (r"codebook0?_head", 2.5),  # logits as spread as a trained model's
    (r"^(thinker|backbone|decoder)\.model\..*(q|k)_proj", 1.5),  # attention that looks at few positions, not all alike
    (r"^(thinker|backbone|decoder)\.model\..*down_proj", 1.5),  # silu(gate) * up is small
    (r"codec_model\.encoder\.layers\.0\.", 10.0),  # speech has rms 0.1
    (r"codec_model\.(encoder|decoder)\.layers\.\d+\.block", 0.7),
    (r"codec_model\.decoder\.layers\.14\.", 0.05),  # and so has the reply
    (r"codec_model\.(encoder|decoder)\.layers", 1.2),  # an ELU takes some away
)

SHARD_BYTES = 1_000_000_000  # at most this much is in memory at once, beside one tensor being drawn


@dataclass(frozen=True)
class Plan:
    """What make_checkpoint writes, without drawing a number."""

    size: Size
    architecture: Architecture
    shards: tuple[Shapes, ...]

    @classmethod
    def of(cls, size: Size) -> "Plan":
        architecture = Architecture.of(config(size), generation_config(size))
        tied = {BACKBONE_AUDIO_EMBEDDING} | ({LM_HEAD} if BLUEPRINTS[size].tied_lm_head else set())
        shapes = tensor_shapes(architecture) | optional_shapes(architecture)
        shards: list[Shapes] = [{}]
        room = SHARD_BYTES
        for name in sorted(shapes.keys() - tied):
            needed = math.prod(shapes[name]) * BLUEPRINTS[size].dtype.itemsize
            if needed > room and shards[-1]:
                shards.append({})
                room = SHARD_BYTES
            shards[-1][name] = shapes[name]
            room -= needed
        return cls(size, architecture, tuple(shards))

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shard in self.shards for shape in shard.values())

    @property
    def bytes(self) -> int:
        return self.parameters * BLUEPRINTS[self.size].dtype.itemsize

    def files(self) -> Iterator[tuple[str, Shapes]]:
        if len(self.shards) == 1:
            yield SINGLE, self.shards[0]
            return
        for i, shard in enumerate(self.shards, 1):
            yield f"model-{i:05}-of-{len(self.shards):05}.safetensors", shard


def make_checkpoint(folder: Path, size: Size, seed: int = 0, progress: Callable[[str], None] | None = None) -> None:
    """Writes a random checkpoint: tiny 0.5 M parameters, mid 125 M (both float32), full the published 4B shapes (bf16).

    The folder appears complete or not at all. Equal seeds give equal files, tensor by tensor.
    progress  is told in words what is being written
    Raises CheckpointError when the folder has content already, or the disk is full.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is not empty: name a new folder for the random checkpoint.")
    plan = Plan.of(size)
    part = folder.with_name(f"{folder.name}.part")
    try:
        if part.exists():  # left by a run that was killed
            shutil.rmtree(part)
        part.mkdir(parents=True)
        free = shutil.disk_usage(part).free
        if free < plan.bytes:
            raise CheckpointError(f"{folder} needs {plan.bytes / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free.")
        _write(part, plan, seed, progress or (lambda _: None))
        part.replace(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint cannot be written to {folder}: {error}.") from error
    finally:
        if part.exists():
            shutil.rmtree(part)


def _write(folder: Path, plan: Plan, seed: int, progress: Callable[[str], None]) -> None:
    blueprint = BLUEPRINTS[plan.size]
    write_configs(folder, plan.size)
    files = list(plan.files())
    for i, (file, shapes) in enumerate(files, 1):
        progress(f"random weights {i} of {len(files)}: {file}")
        tensors = {
            name: draw(name, shape, plan.size, seed).to(blueprint.dtype).contiguous() for name, shape in shapes.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if len(files) > 1:
        weight_map = {name: file for file, shapes in files for name in shapes}
        _write_json(folder / INDEX, {"metadata": {"total_size": plan.bytes}, "weight_map": weight_map})


def write_configs(folder: Path, size: Size) -> None:
    """All of a checkpoint but its weights: tokenizer, config, generation and preprocessor config."""
    make_tokenizer(folder, BLUEPRINTS[size].text_tokens)
    _write_json(folder / "config.json", config(size))
    _write_json(folder / "generation_config.json", generation_config(size))
    _write_json(folder / "preprocessor_config.json", preprocessor_config())


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


CPU = torch.device("cpu")


def draw(name: str, shape: tuple[int, ...], size: Size, seed: int, device: torch.device = CPU) -> Tensor:
    """One tensor, float32, from a generator of its own: neither order nor sharding changes it. Each kind of device
    draws numbers of its own."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))
    normal = torch.empty(shape, device=device).normal_(generator=generator)
    leaf = name.rsplit(".", 1)[-1]
    if name in (TEXT_EMBEDDING, LM_HEAD):
        return _text_rows(normal, size)
    if leaf == "initialized":
        return torch.ones(shape, device=device)
    if leaf == "cluster_usage":
        return 1 + 9 * torch.empty(shape, device=device).uniform_(generator=generator)
    if leaf == "embed_sum":
        usage = draw(name.replace("embed_sum", "cluster_usage"), shape[:1], size, seed, device)
        return normal.mul_(_codebook_scale(name) * usage[:, None])
    if leaf == "scale":
        return normal.mul_(0.1).add_(0.5)
    if leaf == "bias":
        return normal.mul_(0.05)
    if len(shape) == 1:
        return normal.mul_(0.1).add_(1)
    return normal.mul_(_gain(name) / math.sqrt(_fan_in(name, shape)))


def _codebook_scale(name: str) -> float:
    """Each residual quantizer refines what those before it left over."""
    return float(0.5 * 0.85 ** int(name.split(".")[4]))


def _text_rows(normal: Tensor, size: Size) -> Tensor:
    """Rows of the Reasoner's embedding or head: of two random rows the longer one wins the argmax more often."""
    first = BLUEPRINTS[size].text_tokens
    im_end = special_ids(first)["<|im_end|>"]
    normal.mul_(2 / math.sqrt(normal.shape[1]))  # logits of standard deviation 2
    scale = torch.full(normal.shape[:1], 1.0, device=normal.device)
    scale[:BYTES] = 0.4
    scale[first:] = 0.4
    # The best of n logits is about sqrt(2 ln n) - 0.4 deviations up; a single one passes 2 in 2 of 100 steps.
    scale[im_end] = (math.sqrt(2 * math.log(first)) - 0.4) / 2
    return normal.mul_(scale[:, None])


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
    """How many independent inputs one output sums."""
    if name.endswith("codebook_head.weight"):
        return shape[1]  # [books, in, out]
    if name.endswith(("embed_audio_tokens.weight", "audio_bos_eos_token.weight")):
        return 1
    if UPSAMPLING.search(name):  # transposed [in, out, kernel], two steps of it overlap
        return 2 * (1 if shape[1] == 1 else shape[0])
    return math.prod(shape[1:])


def _gain(name: str) -> float:
    """Output deviation of a tensor that is fed unit deviation."""
    return next((gain for pattern, gain in GAINS if re.search(pattern, name)), 1.0)
