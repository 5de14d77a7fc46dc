"""Reference clips to codes, on transformers' Mimi."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.errors import CheckpointError
from chroma_models.layers import TensorSource
from chroma_models.types import CODEBOOKS

UNUSED = ("decoder", "decoder_transformer", "upsample")  # the half of Mimi that a clip never meets


class VoiceEncoder:
    """Mimi's encoder half, float32, with the first CODEBOOKS quantizers.

    get gives the tensors below "codec_model"; names are theirs, without that prefix.
    """

    def __init__(self, shape: CodecShape, get: TensorSource, names: Iterable[str]) -> None:
        from transformers import MimiConfig, MimiModel

        config = MimiConfig(**{**shape.raw, "num_quantizers": CODEBOOKS})  # residual: later ones change no earlier code
        with torch.device("cpu"):
            model = MimiModel(config)
        for part in UNUSED:
            if hasattr(model, part):
                delattr(model, part)
        wanted = model.state_dict()
        sources = matching_names(wanted, names)
        weights = {name: get(source) for name, source in sources.items()}
        wrong = [name for name, tensor in weights.items() if tensor.shape != wanted[name].shape]
        if wrong:
            raise CheckpointError(f"codec_model tensors of another shape than config.json says: {', '.join(wrong)}.")
        model.load_state_dict(weights, strict=True, assign=True)
        self._device = next(iter(weights.values())).device
        self._model = model.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def encode(self, pcm: np.ndarray) -> np.ndarray:
        """Codes int16 [ceil(samples / FRAME_SAMPLES), CODEBOOKS] of a clip, float32 [samples] at 24 kHz.

        The clip goes in as it is: silence added to fill its last frame would change that frame's codes, for biases make
        it other than what Mimi's own layers pad with. (The public reference adds none either.)
        """
        samples = torch.from_numpy(pcm).to(self._device)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else a GPU finds other nearest vectors
            codes: Tensor = self._model.encode(samples[None, None], num_quantizers=CODEBOOKS).audio_codes
        return codes[0].t().to(torch.int16).cpu().numpy()


def matching_names(wanted: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """For each tensor of a model in memory, the flat checkpoint name that it stands under.

    Newer transformers nest modules, which only adds parts to a name: the checkpoint's parts, in order, are found among
    the model's. Where several names qualify the longest is meant. Raises CheckpointError for a tensor without one.
    """
    by_last: dict[str, list[list[str]]] = {}
    for name in names:
        parts = name.split(".")
        by_last.setdefault(parts[-1], []).append(parts)
    found, absent = {}, []
    for name in wanted:
        parts = name.split(".")
        fitting = [p for p in by_last.get(parts[-1], []) if _within(p, parts)]
        if fitting:
            longest: list[str] = max(fitting, key=len)
            found[name] = ".".join(longest)
        else:
            absent.append(name)
    if absent:
        raise CheckpointError(f"The checkpoint's codec lacks {len(absent)} tensors: {', '.join(absent[:10])}.")
    return found


def _within(parts: list[str], longer: list[str]) -> bool:
    """Whether parts appear in that order in longer."""
    rest = iter(longer)
    return all(part in rest for part in parts)
