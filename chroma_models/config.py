"""What an operator chooses about the engines. What the checkpoint dictates is in checkpoint/architecture.py."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
else:
    try:
        from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
    except ImportError:  # a machine with torch and transformers alone runs the engines' benchmarks
        from chroma_models.bare_config import (
            BaseModel,
            ConfigDict,
            NonNegativeFloat,
            NonNegativeInt,
            PositiveFloat,
            PositiveInt,
        )


class Config(BaseModel):
    """A frozen settings node that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TorchConfig(Config):
    """Where and how a stage runs torch."""

    device: str = "auto"  # "cpu", "cuda", "cuda:1"; auto takes CUDA where there is one
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on CUDA, float32 on a CPU
    threads: PositiveInt | None = None  # intra-op threads of one stage; None: a quarter of the cores on a CPU


class TurnLimits(Config):
    """How long each stage waits for what. Changed while running."""

    admit_timeout_s: PositiveFloat = 2.0  # waiting for a slot longer than this is Overloaded
    first_audio_timeout_s: PositiveFloat = 10.0  # from admission to the first frame
    stall_timeout_s: PositiveFloat = 3.0  # a stream silent, or an outbox over its limit, for longer is lost
    max_turn_s: PositiveFloat = 180.0  # a turn is ended after this, whatever else
    max_lead_s: PositiveFloat = 4.0  # a realtime row this far ahead of playback waits
    max_load: PositiveFloat = 0.85  # share of real time that the Backbone's forecast may fill with realtime turns


class BackboneSizes(Config):
    slots: PositiveInt = 16  # new turns per replica; the checkpoint's positions of KV each
    reserved_slots: NonNegativeInt = 1  # further ones that only resumed turns may take, so that a lost replica's fit
    prefill_chunk: PositiveInt = 256  # most positions prefilled between two steps of the running rows
    voice_cache_bytes: NonNegativeInt = 256 << 20  # KV of voice prompts kept on the device; 32 KB a position, full size
    voice_cache_idle_s: PositiveFloat = 45.0  # without a turn in it a voice is forgotten; below 50: deletion takes 60 s
    outbox_frames: PositiveInt = 128  # undelivered frames a slot may hold before stall_timeout_s starts
    step: Literal["auto", "eager", "static"] = "auto"  # static: fixed shapes, CUDA graphs on a GPU; auto: there alone
    half_batches: PositiveInt = 2  # batches in flight between Backbone and a split Decoder
    min_split_rows: PositiveInt = 8  # below this many rows one batch is cheaper than two halves


class BackboneConfig(BackboneSizes, TurnLimits):
    """All the Backbone engine needs."""


class DecoderConfig(Config):
    positions: Literal["published", "contiguous"] = "published"  # rope of the depth decoder: 0,0,1..6 or 0..7
    step: Literal["auto", "eager", "static"] = "auto"  # a split Decoder's, as in BackboneSizes


class CodecSizes(Config):
    slots: PositiveInt = 16  # streams per replica
    max_group: PositiveInt = 4  # frames of one stream decoded in one step
    max_voice_s: PositiveFloat = 30.0  # longest reference clip that is encoded
    step: Literal["auto", "eager", "static"] = "auto"  # as in BackboneSizes


class CodecConfig(CodecSizes, TurnLimits):
    """All the Codec engine needs."""


class ReasonerSizes(Config):
    engine: Literal["vllm", "torch"] = "vllm"
    max_model_len: PositiveInt = 8192  # prompt and reply, in tokens; audio is 25 tokens a second
    slots: PositiveInt = 16  # requests that run at once
    max_audio_parts: PositiveInt = 16  # spoken parts in one conversation
    kv_cache_bytes: PositiveInt = 1 << 30  # vLLM's KV cache; in bytes, so that neighbours on a GPU do not race
    enforce_eager: bool | None = None  # None: eager on a CPU, CUDA graphs on a GPU
    company: PositiveInt = 2  # from so many realtime turns on, vLLM's steps wait for each other
    step_interval_s: NonNegativeFloat = 0.04  # then between steps; a step is 0.16 s of speech; 0: never wait
    first_token_timeout_s: PositiveFloat = 10.0
    idle_s: NonNegativeFloat = 1.0  # a keep-alive goes out when nothing else did for this long


class ReasonerConfig(ReasonerSizes, TurnLimits):
    """All a Reasoner engine needs."""
