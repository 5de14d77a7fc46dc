"""Random Mimis small enough for tests, strong enough that every layer is heard, and two oracles of how they sound."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import MimiConfig, MimiModel
from transformers.models.mimi.modeling_mimi import MimiEuclideanCodebook

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.types import CODEBOOKS

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
    "codebook_size": 64,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
    "num_filters": 4,
    "num_quantizers": CODEBOOKS,
    "upsample_groups": 32,
}


@dataclass(frozen=True, repr=False)
class Mimi:
    """A Mimi in transformers, and the same weights as a checkpoint has them."""

    model: MimiModel
    shape: CodecShape
    weights: dict[str, Tensor]

    def decoder(self, slots: int, max_group: int = 4) -> StreamDecoder:
        return StreamDecoder(self.shape, self.weights.__getitem__, slots, max_group)

    def codes(self, streams: int, frames: int, seed: int = 0) -> Tensor:
        """int64 [streams, frames, CODEBOOKS]"""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.shape.codebook_size, (streams, frames, CODEBOOKS), generator=generator)

    @torch.inference_mode()
    def offline(self, codes: Tensor) -> Tensor:
        """[streams, samples]: transformers decodes whole streams [streams, frames, CODEBOOKS] at once."""
        return self.model.decode(codes.transpose(1, 2)).audio_values[:, 0].clone()


def random_mimi(**changes: Any) -> Mimi:
    """Attention is sharp, and layer scales far above the usual start of 0.01: one lost key would be heard."""
    torch.manual_seed(1)
    config = MimiConfig(**{**SMALL, **changes})
    model = MimiModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".scale"):
                parameter.uniform_(0.1, 0.4)
            elif "_transformer" in name and parameter.ndim == 2:
                sharp = 2.0 if re.search(r"\.[qk]_proj\.", name) else 1.0
                parameter.normal_(std=sharp / parameter.shape[1] ** 0.5)
            elif "layernorm" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.decoder.layers[-1].conv.weight.mul_(0.2)  # near -1..1
        for module in model.modules():
            if isinstance(module, MimiEuclideanCodebook):
                module.embed_sum.normal_()
                module.cluster_usage.uniform_(0.5, 2.0)
                module.cluster_usage[:3] = 0.0  # never used: here the floor under usage counts decides
                module.embed_sum[:3] *= 1e-5
    return Mimi(model, CodecShape.of(config.to_dict()), dict(model.state_dict()))


class Moshi:
    """moshi's own streaming Mimi, one stream at a time, its ring of keys enlarged so that no needed key is overwritten.

    As published, a step of n positions overwrites the n - 1 oldest keys that its first query still needs.
    """

    def __init__(self, mimi: Mimi) -> None:
        from moshi.models.loaders import get_mimi

        raw, shape = mimi.shape.raw, mimi.shape
        self._model = get_mimi(None, _moshi_config(raw, shape), num_codebooks=CODEBOOKS)
        weights = {name: tensor.clone() for name, tensor in moshi_weights(mimi.weights, shape.heads).items()}
        self._model.load_state_dict(weights, strict=True)
        self._context = shape.context

    @torch.no_grad()
    def stream(self, codes: Tensor, group: int) -> Tensor:
        """[samples] of codes [frames, CODEBOOKS], decoded `group` frames at a time."""
        from moshi.modules.transformer import RingKVCache, StreamingMultiheadAttention

        with self._model.streaming(1):
            for module in self._model.modules():
                if isinstance(module, StreamingMultiheadAttention):
                    heads, dim = module.num_heads, module.embed_dim // module.num_heads
                    room = self._context + 2 * group - 1
                    state = module._streaming_state
                    state.kv_cache = RingKVCache(1, heads, dim, room, device=torch.device("cpu"), dtype=torch.float32)
            parts = [self._model.decode(part.t()[None]) for part in codes.split(group)]
        return torch.cat(parts, -1)[0, 0]


def _moshi_config(raw: Any, shape: CodecShape) -> dict[str, Any]:
    inner = int(raw["vector_quantization_hidden_dimension"])
    return {
        "sample_rate": 24000,
        "channels": 1,
        "frame_rate": 12.5,
        "seanet": {
            "channels": 1,
            "dimension": shape.hidden,
            "causal": True,
            "n_filters": shape.filters,
            "n_residual_layers": 1,
            "activation": "ELU",
            "compress": shape.compress,
            "dilation_base": 2,
            "disable_norm_outer_blocks": 0,
            "kernel_size": shape.kernel,
            "residual_kernel_size": shape.residual_kernel,
            "last_kernel_size": shape.last_kernel,
            "norm": "none",
            "pad_mode": "constant",
            "ratios": list(shape.ratios),
            "true_skip": True,
        },
        "quantizer": {
            "dimension": inner,
            "n_q": shape.quantizers,
            "bins": shape.codebook_size,
            "input_dimension": shape.hidden,
            "output_dimension": shape.hidden,
        },
        "transformer": {
            "d_model": shape.hidden,
            "num_heads": shape.heads,
            "num_layers": shape.layers,
            "causal": True,
            "layer_scale": 0.01,
            "context": shape.context,
            "conv_layout": True,
            "max_period": shape.rope_theta,
            "gating": "none",
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "dim_feedforward": shape.intermediate,
            "input_dimension": shape.hidden,
            "output_dimensions": [shape.hidden],
        },
    }


RENAMED = [
    (r"^quantizer\.semantic_residual_vector_quantizer\.layers", "quantizer.rvq_first.vq.layers"),
    (r"^quantizer\.acoustic_residual_vector_quantizer\.layers", "quantizer.rvq_rest.vq.layers"),
    (r"^quantizer\.semantic_residual_vector_quantizer", "quantizer.rvq_first"),
    (r"^quantizer\.acoustic_residual_vector_quantizer", "quantizer.rvq_rest"),
    (r"codebook\.initialized$", "_codebook._initialized"),
    (r"codebook\.embed_sum$", "_codebook.embedding_sum"),
    (r"codebook\.cluster_usage$", "_codebook.cluster_usage"),
    (r"^(\w+)_transformer\.layers", r"\1_transformer.transformer.layers"),
    (r"mlp\.fc(\d)", r"linear\1"),
    (r"self_attn\.o_proj", "self_attn.out_projs.0"),
    (r"input_layernorm", "norm1"),
    (r"post_attention_layernorm", "norm2"),
    (r"self_attn_layer_scale", "layer_scale_1"),
    (r"mlp_layer_scale", "layer_scale_2"),
    (r"^downsample\.conv", "downsample.conv.conv.conv"),
    (r"^upsample\.conv", "upsample.convtr.convtr.convtr"),
    (r"^(\w+)\.layers\.(\d+)\.block\.(\d)\.conv", r"\1.model.\2.block.\3.conv.conv"),
    (r"^decoder\.layers\.(2|5|8|11)\.conv", r"decoder.model.\1.convtr.convtr"),
    (r"^(\w+coder)\.layers\.(\d+)\.conv", r"\1.model.\2.conv.conv"),
]


def moshi_weights(weights: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Names as moshi has them. Its rope turns neighbours, transformers' the two halves of a head."""
    fused = dict(weights)
    for name in weights:
        if name.endswith("self_attn.q_proj.weight"):
            place = name.removesuffix("q_proj.weight")
            q, k, v = (fused.pop(f"{place}{part}_proj.weight") for part in "qkv")
            fused[f"{place}in_projs.0.weight"] = torch.cat([_pairs(q, heads), _pairs(k, heads), v])
    return {_moshi_name(name): tensor for name, tensor in fused.items()}


def _moshi_name(name: str) -> str:
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _pairs(weight: Tensor, heads: int) -> Tensor:
    rows = torch.arange(weight.shape[0]).view(heads, 2, -1).transpose(1, 2).reshape(-1)
    return weight[rows]
