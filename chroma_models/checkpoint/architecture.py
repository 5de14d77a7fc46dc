"""The shapes and ids a checkpoint dictates, read from its config.json and generation_config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chroma_models.errors import CheckpointError
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES, SAMPLE_RATE_HZ

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Rope:
    """Rotary positions: plain, or stretched as Llama 3 does (factor > 1)."""

    theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192

    @classmethod
    def of(cls, config: Json) -> "Rope":
        """Accepts rope_parameters or rope_scaling, with the type under rope_type or type and theta in or beside it."""
        spelled: dict[str, Any] = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        theta = float(spelled.get("rope_theta") or config.get("rope_theta") or 10_000.0)
        kind = spelled.get("rope_type", spelled.get("type", "default"))
        if kind in ("default", "mrope"):
            return cls(theta)
        if kind != "llama3":
            raise CheckpointError(f"config.json asks for rope type {kind!r}; only 'default' and 'llama3' are known.")
        return cls(
            theta,
            float(spelled["factor"]),
            float(spelled["low_freq_factor"]),
            float(spelled["high_freq_factor"]),
            int(spelled["original_max_position_embeddings"]),
        )


@dataclass(frozen=True)
class StackShape:
    """A pre-norm decoder-only transformer: Llama (backbone, depth decoder) or Qwen2 (reasoner, with qkv bias)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    norm_eps: float
    rope: Rope
    qkv_bias: bool
    positions: int

    @classmethod
    def of(cls, config: Json, *, qkv_bias: bool) -> "StackShape":
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            norm_eps=float(config["rms_norm_eps"]),
            rope=Rope.of(config),
            qkv_bias=qkv_bias,
            positions=int(config["max_position_embeddings"]),
        )


@dataclass(frozen=True)
class CodecShape:
    """Mimi, as its config describes it. raw is what transformers' MimiConfig takes."""

    hidden: int
    layers: int
    heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    context: int  # positions a layer attends to, at two per frame
    codebook_size: int
    codebook_dim: int
    quantizers: int
    semantic_quantizers: int
    filters: int
    ratios: tuple[int, ...]
    kernel: int
    last_kernel: int
    residual_kernel: int
    compress: int
    norm_eps: float
    raw: Json

    @classmethod
    def of(cls, config: Json) -> "CodecShape":
        heads = int(config["num_attention_heads"])
        shape = cls(
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            intermediate=int(config["intermediate_size"]),
            rope_theta=Rope.of(config).theta,
            context=int(config["sliding_window"]),
            codebook_size=int(config["codebook_size"]),
            codebook_dim=int(config.get("codebook_dim") or config["hidden_size"]),
            quantizers=int(config["num_quantizers"]),
            semantic_quantizers=int(config["num_semantic_quantizers"]),
            filters=int(config["num_filters"]),
            ratios=tuple(int(r) for r in config["upsampling_ratios"]),
            kernel=int(config["kernel_size"]),
            last_kernel=int(config["last_kernel_size"]),
            residual_kernel=int(config["residual_kernel_size"]),
            compress=int(config["compress"]),
            norm_eps=float(config["norm_eps"]),
            raw=dict(config),
        )
        fixed = {
            "sampling_rate": SAMPLE_RATE_HZ,
            "num_residual_layers": 1,
            "use_causal_conv": True,
            "use_conv_shortcut": False,
            "audio_channels": 1,
            "pad_mode": "constant",
            "trim_right_ratio": 1.0,
            "num_semantic_quantizers": 1,
        }
        wrong = [f"{k}={config.get(k)!r} (want {v!r})" for k, v in fixed.items() if config.get(k, v) != v]
        if wrong:
            raise CheckpointError(f"codec_config is not a Mimi this project can stream: {', '.join(wrong)}.")
        return shape


@dataclass(frozen=True)
class Architecture:
    """Everything about the model that is not a weight."""

    backbone: StackShape
    decoder: StackShape
    reasoner: StackShape
    codec: CodecShape
    audio_vocab: int  # rows per codebook of the audio embedding: codes, then special ids
    text_vocab: int
    text_start: int
    text_end: int
    im_end: int
    audio_token: int
    codebook_pad: int
    codebook_eos: int
    eos_token: int | None  # generation_config's; only a batched reference acts on it
    tied_lm_head: bool | None  # what the thinker config says; the weights decide
    generation: Json  # generation_config.json
    raw: Json  # config.json

    @property
    def codebook_size(self) -> int:
        return self.codec.codebook_size

    @property
    def audio_encoder(self) -> Json:
        """What transformers' Qwen2_5OmniAudioEncoderConfig takes."""
        raw: Json = self.raw["thinker_config"]["audio_config"]
        return raw

    @classmethod
    def read(cls, folder: Path) -> "Architecture":
        """Raises CheckpointError when a file is absent, is not JSON, or lacks a key."""
        config = read_json(folder / "config.json")
        generation_path = folder / "generation_config.json"
        generation = read_json(generation_path) if generation_path.exists() else {}
        try:
            return cls.of(config, generation)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / 'config.json'} is not a Chroma config: {error!r}.") from error

    @classmethod
    def of(cls, config: Json, generation: Json) -> "Architecture":
        if config.get("model_type") != "chroma":
            raise CheckpointError(
                f"config.json says model_type {config.get('model_type')!r}, not 'chroma': name a checkpoint of Chroma."
            )
        thinker = config["thinker_config"]
        text = thinker["text_config"]
        backbone, decoder = config["backbone_config"], config["decoder_config"]
        books = int(config.get("audio_num_codebooks", CODEBOOKS))
        frame = int(config.get("audio_frame_freq", FRAME_SAMPLES))
        if books != CODEBOOKS or frame != FRAME_SAMPLES:
            raise CheckpointError(f"Frames of {books} codes and {frame} samples; this project serves 8 and 1920.")
        architecture = cls(
            backbone=StackShape.of(backbone, qkv_bias=False),
            decoder=StackShape.of(decoder, qkv_bias=False),
            reasoner=StackShape.of(text, qkv_bias=True),
            codec=CodecShape.of(config["codec_config"]),
            audio_vocab=int(backbone["vocab_size"]),
            text_vocab=int(text["vocab_size"]),
            text_start=int(config["text_start_token_id"]),
            text_end=int(config["text_end_token_id"]),
            im_end=int(config["im_end_token_id"]),
            audio_token=int(thinker.get("audio_token_index", thinker.get("audio_token_id", -1))),
            codebook_pad=int(config["codebook_pad_token_id"]),
            codebook_eos=int(config.get("codebook_eos_token_id", 0)),
            eos_token=_first(generation.get("eos_token_id")),
            tied_lm_head=thinker.get("tie_word_embeddings"),
            generation=dict(generation),
            raw=dict(config),
        )
        if architecture.backbone.hidden != architecture.reasoner.hidden:
            raise CheckpointError("Backbone and reasoner differ in hidden_size, so text rows cannot be injected.")
        if int(decoder["vocab_size"]) != architecture.audio_vocab:
            raise CheckpointError("backbone_config and decoder_config differ in vocab_size.")
        return architecture


def _first(value: Any) -> int | None:
    """generation_config spells an id as a number, a list or nothing."""
    if isinstance(value, list):
        value = value[0] if value else None
    return None if value is None else int(value)


def read_json(path: Path) -> Json:
    """The JSON object in a file. Raises CheckpointError."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: is this a Chroma checkpoint, all of it?") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return loaded
