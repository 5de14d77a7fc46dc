"""From a checkpoint to the parts of one stage, on that stage's device."""

import os

import torch
from torch import Tensor

from chroma_models.backbone import Backbone
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.codebooks import Codebooks
from chroma_models.codec.engine import CodecEngine
from chroma_models.codec.static_decoder import StaticDecoder
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.codec.voice_encoder import VoiceEncoder
from chroma_models.config import CodecConfig, DecoderConfig, TorchConfig
from chroma_models.decoder import DepthDecoder
from chroma_models.engine.cuda_graph import wants_static
from chroma_models.engine.step import SPARE_POSITIONS

STAGES = 4  # models at work on one machine
EMBEDDING = "audio_embedding.embed_audio_tokens.weight"


def device_of(config: TorchConfig) -> torch.device:
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(config: TorchConfig) -> torch.dtype:
    if config.dtype == "auto":
        return torch.bfloat16 if device_of(config).type == "cuda" else torch.float32
    return torch.float32 if config.dtype == "float32" else torch.bfloat16


def threads_of(config: TorchConfig) -> int | None:
    """Intra-op threads of one stage; None leaves them as they are, since a GPU does the work.

    On a CPU the four stages share the machine. Were each to take every core, as torch does by itself, their OpenMP
    teams would wait for one another at every operator: a step was seen to take ten times as long.
    """
    if config.threads is not None or device_of(config).type != "cpu":
        return config.threads
    return max(1, len(os.sched_getaffinity(0)) // STAGES)


def set_threads(config: TorchConfig) -> None:
    """For the calling process, and for threads that have not run torch yet."""
    threads = threads_of(config)
    if threads is not None:
        torch.set_num_threads(threads)


def load_codebooks(checkpoint: Checkpoint, owner: str, config: TorchConfig) -> Codebooks:
    return Codebooks(checkpoint.tensor(f"{owner}.{EMBEDDING}", device_of(config), dtype_of(config)))


def load_text_table(checkpoint: Checkpoint, config: TorchConfig) -> Tensor:
    return checkpoint.tensor("thinker.model.embed_tokens.weight", device_of(config), dtype_of(config))


def load_backbone(checkpoint: Checkpoint, config: TorchConfig) -> Backbone:
    return Backbone(
        checkpoint.architecture,
        checkpoint.source("backbone.", device_of(config), dtype_of(config)),
        load_codebooks(checkpoint, "backbone", config),
        load_text_table(checkpoint, config),
        SPARE_POSITIONS,
    )


def load_decoder(checkpoint: Checkpoint, config: TorchConfig, decoder: DecoderConfig) -> DepthDecoder:
    return DepthDecoder(
        checkpoint.architecture,
        checkpoint.source("decoder.", device_of(config), dtype_of(config)),
        load_codebooks(checkpoint, "decoder", config),
        decoder.positions,
    )


def fingerprint(checkpoint: Checkpoint, config: TorchConfig, decoder: DecoderConfig) -> str:
    """Names what a turn's codes depend on: weights, dtype, position mode. Resume only onto an equal one.

    The Reasoner's, of weights and dtype, and the Codec's, of the weights, are beginnings of it.
    """
    return f"{checkpoint.digest}-{str(dtype_of(config)).removeprefix('torch.')}-{decoder.positions}"


def load_codec(checkpoint: Checkpoint, config: TorchConfig, codec: CodecConfig) -> CodecEngine:
    """Mimi runs in float32 whatever the language models run in: bf16 costs it half its signal-to-noise ratio."""
    shape = checkpoint.architecture.codec
    device = device_of(config)
    get = checkpoint.source("codec_model.", device, torch.float32)
    make = StaticDecoder if wants_static(codec.step, device) else StreamDecoder
    decoder = make(shape, get, codec.slots, codec.max_group)
    names = [name.removeprefix("codec_model.") for name in checkpoint.names("codec_model.")]
    return CodecEngine(decoder, VoiceEncoder(shape, get, names), codec)
