"""The configurations of random checkpoints: two small ones, and the published model's own shapes."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from chroma_models.checkpoint.tokenizer import SPECIALS, special_ids
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES, FRAMES_PER_S, LISTEN_RATE_HZ, SAMPLE_RATE_HZ

Size = Literal["tiny", "mid", "full"]

MELS, MEL_HOP = 128, 160  # what Whisper's extractor computes
LONGEST_CLIP_S = 300  # Qwen2.5-Omni's
SPECIAL_CODES = 3  # rows of the audio vocabulary above the codes; the last is the pad
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0}


@dataclass(frozen=True)
class Blueprint:
    """What differs between the sizes; a stack is its layers, hidden, heads, kv heads, head dim, intermediate."""

    backbone: tuple[int, int, int, int, int, int]
    decoder: tuple[int, int, int, int, int, int]
    reasoner: tuple[int, int, int, int, int, int]
    mrope_section: tuple[int, int, int]
    audio_tower: tuple[int, int, int, int]  # layers, width, heads, ffn
    text_tokens: int  # ordinary ones; the special tokens follow
    text_vocab: int
    tied_lm_head: bool
    codebook_size: int
    codec: dict[str, Any]
    dtype: torch.dtype


def _mimi(width: int, layers: int, heads: int, wide: int, filters: int, book: int, books: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "intermediate_size": wide,
        "num_filters": filters,
        "codebook_dim": book,
        "vector_quantization_hidden_dimension": book,
        "upsample_groups": width,
        "num_quantizers": books,
    }


FULL_MIMI = _mimi(512, 8, 8, 2048, 64, 256, 32)

BLUEPRINTS: dict[Size, Blueprint] = {
    "tiny": Blueprint(
        backbone=(2, 64, 4, 2, 16, 96),
        decoder=(2, 32, 2, 1, 16, 64),
        reasoner=(2, 64, 2, 1, 32, 96),  # vLLM's attention on a CPU takes no smaller head
        mrope_section=(4, 6, 6),
        audio_tower=(2, 32, 2, 64),
        text_tokens=512 - len(SPECIALS),
        text_vocab=512,
        tied_lm_head=False,
        codebook_size=64,
        codec=_mimi(32, 2, 2, 64, 4, 16, CODEBOOKS),
        dtype=torch.float32,
    ),
    "mid": Blueprint(
        backbone=(4, 512, 8, 2, 64, 768),
        decoder=(2, 256, 4, 2, 64, 512),
        reasoner=(4, 512, 8, 2, 64, 768),
        mrope_section=(8, 12, 12),
        audio_tower=(2, 128, 4, 512),
        text_tokens=4096 - len(SPECIALS),
        text_vocab=4096,
        tied_lm_head=True,
        codebook_size=2048,
        codec=FULL_MIMI,
        dtype=torch.float32,
    ),
    "full": Blueprint(
        backbone=(16, 2048, 32, 8, 64, 8192),
        decoder=(4, 1024, 8, 2, 128, 8192),
        reasoner=(36, 2048, 16, 2, 128, 11008),
        mrope_section=(16, 24, 24),
        audio_tower=(32, 1280, 20, 5120),
        text_tokens=151_643,
        text_vocab=151_936,
        tied_lm_head=True,
        codebook_size=2048,
        codec=FULL_MIMI,
        dtype=torch.bfloat16,
    ),
}


def config(size: Size) -> dict[str, Any]:
    """config.json of a size."""
    blueprint = BLUEPRINTS[size]
    ids = special_ids(blueprint.text_tokens)
    codes = blueprint.codebook_size + SPECIAL_CODES
    audio = {"audio_num_codebooks": CODEBOOKS, "vocab_size": codes, "rms_norm_eps": 1e-5}
    backbone_rope = {"low_freq_factor": 0.125, "high_freq_factor": 0.5, "original_max_position_embeddings": 1024}
    decoder_rope = {"low_freq_factor": 2**-9, "high_freq_factor": 2**-7, "original_max_position_embeddings": 16}
    return {
        "architectures": ["ChromaForConditionalGeneration"],
        "model_type": "chroma",
        "dtype": str(blueprint.dtype).removeprefix("torch."),
        "audio_frame_freq": FRAME_SAMPLES,
        "audio_num_codebooks": CODEBOOKS,
        "codebook_eos_token_id": 0,
        "codebook_pad_token_id": codes - 1,
        "im_end_token_id": ids["<|im_end|>"],
        "text_start_token_id": ids["<|text_start|>"],
        "text_end_token_id": ids["<|text_end|>"],
        "backbone_config": {
            "model_type": "chroma_backbone",
            **_stack(blueprint.backbone, 2048),
            **audio,
            "rope_parameters": LLAMA3 | backbone_rope,
        },
        "decoder_config": {
            "model_type": "chroma_decoder",
            **_stack(blueprint.decoder, 33),
            **audio,
            "audio_embedding_dim": blueprint.backbone[1],
            "rope_parameters": LLAMA3 | decoder_rope,
        },
        "codec_config": {
            "model_type": "mimi",
            **blueprint.codec,
            "codebook_size": blueprint.codebook_size,
            "_frame_rate": FRAMES_PER_S,
            "sampling_rate": SAMPLE_RATE_HZ,
            "audio_channels": 1,
            "upsampling_ratios": [8, 6, 5, 4],
            "kernel_size": 7,
            "last_kernel_size": 3,
            "residual_kernel_size": 3,
            "num_residual_layers": 1,
            "dilation_growth_rate": 2,
            "compress": 2,
            "num_semantic_quantizers": 1,
            "use_causal_conv": True,
            "use_conv_shortcut": False,
            "pad_mode": "constant",
            "trim_right_ratio": 1.0,
            "norm_eps": 1e-5,
            "hidden_act": "gelu",
            "sliding_window": 250,
            "max_position_embeddings": 8000,
            "layer_scale_initial_scale": 0.01,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "thinker_config": _thinker(blueprint, ids),
    }


def generation_config(size: Size) -> dict[str, Any]:
    """generation_config.json: greedy unless asked."""
    pad = BLUEPRINTS[size].codebook_size + SPECIAL_CODES - 1
    return {"do_sample": False, "temperature": 1.0, "top_k": 50, "eos_token_id": 0, "pad_token_id": pad}


def preprocessor_config() -> dict[str, Any]:
    """preprocessor_config.json: Whisper's features as Qwen2.5-Omni takes them."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "chunk_length": LONGEST_CLIP_S,
        "dither": 0.0,
        "feature_size": MELS,
        "hop_length": MEL_HOP,
        "n_fft": 400,
        "n_samples": LONGEST_CLIP_S * LISTEN_RATE_HZ,
        "nb_max_frames": LONGEST_CLIP_S * LISTEN_RATE_HZ // MEL_HOP,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": LISTEN_RATE_HZ,
    }


def _stack(sizes: tuple[int, int, int, int, int, int], positions: int) -> dict[str, Any]:
    layers, hidden, heads, kv_heads, head_dim, intermediate = sizes
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "hidden_act": "silu",
    }


def _thinker(blueprint: Blueprint, ids: dict[str, int]) -> dict[str, Any]:
    text = _stack(blueprint.reasoner, 32_768)
    del text["head_dim"]  # Qwen2 always has hidden / heads
    layers, width, heads, wide = blueprint.audio_tower
    return {
        "model_type": "qwen2_5_omni_thinker",
        "tie_word_embeddings": blueprint.tied_lm_head,
        "audio_token_index": ids["<|AUDIO|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "audio_config": {
            "model_type": "qwen2_5_omni_audio_encoder",
            "num_mel_bins": MELS,
            "d_model": width,
            "encoder_layers": layers,
            "num_hidden_layers": layers,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": wide,
            "n_window": 100,
            "max_source_positions": 1500,
            "output_dim": blueprint.reasoner[1],
            "activation_function": "gelu",
        },
        "text_config": {
            "model_type": "qwen2_5_omni_text",
            **text,
            "vocab_size": blueprint.text_vocab,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": blueprint.tied_lm_head,
            "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": list(blueprint.mrope_section),
            },
        },
        # Its weights are left out, as nothing looks; whoever builds the whole thinker gets the least of a tower.
        "vision_config": {
            "model_type": "qwen2_5_omni_vision_encoder",
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": blueprint.reasoner[1],
            "fullatt_block_indexes": [0],
        },
    }
