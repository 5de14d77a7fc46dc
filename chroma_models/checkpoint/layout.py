"""Which tensors a checkpoint of a given architecture holds, and their shapes."""

from collections.abc import Iterator
from math import prod

from chroma_models.checkpoint.architecture import Architecture, CodecShape, Json, StackShape
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES

Shapes = dict[str, tuple[int, ...]]

UNUSED = "thinker.visual."  # the vision tower: Chroma never looks at anything
LM_HEAD = "thinker.lm_head.weight"
TEXT_EMBEDDING = "thinker.model.embed_tokens.weight"
BACKBONE_AUDIO_EMBEDDING = "backbone.audio_embedding.embed_audio_tokens.weight"
DECODER_AUDIO_EMBEDDING = "decoder.audio_embedding.embed_audio_tokens.weight"

TIES = {  # a tensor that may be absent, and the one that then stands in for it
    LM_HEAD: TEXT_EMBEDDING,
    BACKBONE_AUDIO_EMBEDDING: DECODER_AUDIO_EMBEDDING,
    DECODER_AUDIO_EMBEDDING: BACKBONE_AUDIO_EMBEDDING,
}


def tensor_shapes(architecture: Architecture) -> Shapes:
    """Every tensor the model computes with, by checkpoint name; both ends of a tie are listed.

    Names are the flat ones of the published files, not those that newer transformers nest in memory.
    """
    backbone, decoder, reasoner = architecture.backbone, architecture.decoder, architecture.reasoner
    rows = architecture.audio_vocab
    audio_embedding = (CODEBOOKS * rows, backbone.hidden)
    return {
        **_audio_tower("thinker.audio_tower", architecture.audio_encoder, reasoner.hidden),
        TEXT_EMBEDDING: (architecture.text_vocab, reasoner.hidden),
        **_stack("thinker.model", reasoner),
        LM_HEAD: (architecture.text_vocab, reasoner.hidden),
        **_stack("backbone.model", backbone),
        "backbone.codebook0_head.weight": (rows, backbone.hidden),
        BACKBONE_AUDIO_EMBEDDING: audio_embedding,
        "decoder.projection.weight": (decoder.hidden, backbone.hidden),
        **_stack("decoder.model", decoder),
        "decoder.codebook_head.weight": (CODEBOOKS - 1, decoder.hidden, rows),
        DECODER_AUDIO_EMBEDDING: audio_embedding,
        **_codec("codec_model", architecture.codec),
    }


def optional_shapes(architecture: Architecture) -> Shapes:
    """Tensors that published files carry and nothing computes with."""
    width = architecture.reasoner.hidden
    return {
        "thinker.audio_tower.audio_bos_eos_token.weight": (2, width),
        **{f"{book}.initialized": (1,) for book in _codebooks("codec_model.quantizer", architecture.codec)},
    }


def _linear(name: str, out: int, *inward: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (out, *inward)}
    return weight | {f"{name}.bias": (out,)} if bias else weight


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _stack(prefix: str, shape: StackShape) -> Shapes:
    """A Llama or Qwen2 stack without its embedding and head."""
    width, q, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes: Shapes = {}
    for i in range(shape.layers):
        layer = f"{prefix}.layers.{i}"
        shapes |= {
            **_linear(f"{layer}.self_attn.q_proj", q, width, bias=shape.qkv_bias),
            **_linear(f"{layer}.self_attn.k_proj", kv, width, bias=shape.qkv_bias),
            **_linear(f"{layer}.self_attn.v_proj", kv, width, bias=shape.qkv_bias),
            **_linear(f"{layer}.self_attn.o_proj", width, q, bias=False),
            **_linear(f"{layer}.mlp.gate_proj", shape.intermediate, width, bias=False),
            **_linear(f"{layer}.mlp.up_proj", shape.intermediate, width, bias=False),
            **_linear(f"{layer}.mlp.down_proj", width, shape.intermediate, bias=False),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    return shapes | {f"{prefix}.norm.weight": (width,)}


def _audio_tower(prefix: str, config: Json, out: int) -> Shapes:
    """Qwen2.5-Omni's audio encoder; its keys alone have no bias."""
    width, wide = int(config["d_model"]), int(config["encoder_ffn_dim"])
    shapes = {
        **_linear(f"{prefix}.conv1", width, int(config["num_mel_bins"]), 3),
        **_linear(f"{prefix}.conv2", width, width, 3),
    }
    for i in range(int(config["encoder_layers"])):
        layer = f"{prefix}.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{part}", width, width, bias=part != "k_proj")
        shapes |= _norm(f"{layer}.self_attn_layer_norm", width)
        shapes |= _linear(f"{layer}.fc1", wide, width)
        shapes |= _linear(f"{layer}.fc2", width, wide)
        shapes |= _norm(f"{layer}.final_layer_norm", width)
    return {**shapes, **_norm(f"{prefix}.ln_post", width), **_linear(f"{prefix}.proj", out, width)}


def _codebooks(prefix: str, codec: CodecShape) -> Iterator[str]:
    counts = {"semantic": codec.semantic_quantizers, "acoustic": codec.quantizers - codec.semantic_quantizers}
    for kind, count in counts.items():
        for i in range(count):
            yield f"{prefix}.{kind}_residual_vector_quantizer.layers.{i}.codebook"


def _codec(prefix: str, codec: CodecShape) -> Shapes:
    """Mimi: SEANet encoder and decoder, a transformer and a resampling convolution each, split quantizers."""
    width = codec.hidden
    stretch = 2 * FRAME_SAMPLES // prod(codec.ratios)  # kernel of the step between transformer and frame rate
    groups = int(codec.raw.get("upsample_groups", width))
    shapes = {
        **_seanet_encoder(f"{prefix}.encoder", codec),
        **_codec_transformer(f"{prefix}.encoder_transformer", codec),
        f"{prefix}.downsample.conv.weight": (width, width, stretch),
        f"{prefix}.upsample.conv.weight": (width, width // groups, stretch),
        **_codec_transformer(f"{prefix}.decoder_transformer", codec),
        **_seanet_decoder(f"{prefix}.decoder", codec),
    }
    inner = int(codec.raw.get("vector_quantization_hidden_dimension", codec.codebook_dim))
    for kind in ("semantic", "acoustic") if inner != width else ():
        quantizer = f"{prefix}.quantizer.{kind}_residual_vector_quantizer"
        shapes |= _linear(f"{quantizer}.input_proj", inner, width, 1, bias=False)
        shapes |= _linear(f"{quantizer}.output_proj", width, inner, 1, bias=False)
    for book in _codebooks(f"{prefix}.quantizer", codec):
        shapes[f"{book}.cluster_usage"] = (codec.codebook_size,)
        shapes[f"{book}.embed_sum"] = (codec.codebook_size, codec.codebook_dim)
    return shapes


def _codec_transformer(prefix: str, codec: CodecShape) -> Shapes:
    width, q = codec.hidden, codec.heads * codec.head_dim
    kv = int(codec.raw.get("num_key_value_heads") or codec.heads) * codec.head_dim
    shapes: Shapes = {}
    for i in range(codec.layers):
        layer = f"{prefix}.layers.{i}"
        shapes |= {
            **_linear(f"{layer}.self_attn.q_proj", q, width, bias=False),
            **_linear(f"{layer}.self_attn.k_proj", kv, width, bias=False),
            **_linear(f"{layer}.self_attn.v_proj", kv, width, bias=False),
            **_linear(f"{layer}.self_attn.o_proj", width, q, bias=False),
            **_linear(f"{layer}.mlp.fc1", codec.intermediate, width, bias=False),
            **_linear(f"{layer}.mlp.fc2", width, codec.intermediate, bias=False),
            **_norm(f"{layer}.input_layernorm", width),
            **_norm(f"{layer}.post_attention_layernorm", width),
            f"{layer}.self_attn_layer_scale.scale": (width,),
            f"{layer}.mlp_layer_scale.scale": (width,),
        }
    return shapes


def _residual_block(prefix: str, channels: int, codec: CodecShape) -> Shapes:
    """Activations hold the even indices of a block."""
    inner = channels // codec.compress
    return {
        **_linear(f"{prefix}.block.1.conv", inner, channels, codec.residual_kernel),
        **_linear(f"{prefix}.block.3.conv", channels, inner, 1),
    }


def _seanet_encoder(prefix: str, codec: CodecShape) -> Shapes:
    """Per ratio: a residual block, an activation, a strided convolution that doubles the channels."""
    channels = codec.filters
    shapes = _linear(f"{prefix}.layers.0.conv", channels, 1, codec.kernel)
    i = 1
    for ratio in reversed(codec.ratios):
        shapes |= _residual_block(f"{prefix}.layers.{i}", channels, codec)
        shapes |= _linear(f"{prefix}.layers.{i + 2}.conv", 2 * channels, channels, 2 * ratio)
        channels, i = 2 * channels, i + 3
    return shapes | _linear(f"{prefix}.layers.{i + 1}.conv", codec.hidden, channels, codec.last_kernel)


def _seanet_decoder(prefix: str, codec: CodecShape) -> Shapes:
    """The encoder mirrored; a transposed convolution has its input channels first."""
    channels = codec.filters * 2 ** len(codec.ratios)
    shapes = _linear(f"{prefix}.layers.0.conv", channels, codec.hidden, codec.kernel)
    i = 1
    for ratio in codec.ratios:
        half = channels // 2
        shapes[f"{prefix}.layers.{i + 1}.conv.weight"] = (channels, half, 2 * ratio)
        shapes[f"{prefix}.layers.{i + 1}.conv.bias"] = (half,)
        shapes |= _residual_block(f"{prefix}.layers.{i + 2}", half, codec)
        channels, i = half, i + 3
    return shapes | _linear(f"{prefix}.layers.{i + 1}.conv", 1, channels, codec.last_kernel)
