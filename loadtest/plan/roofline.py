"""What a device could do at best, from the model's shapes: for stages nobody has measured, and for memory."""

from dataclasses import dataclass
from functools import cache

from chroma_models.checkpoint.architecture import Architecture, StackShape
from chroma_models.checkpoint.sizes import Size, config, generation_config
from chroma_models.types import CODEBOOKS
from loadtest.plan.curve import Curve, Point

BATCHES = (1, 8, 32, 64, 128, 256, 512, 1024)
EFFICIENCY = 0.3  # of the roofline that is reached, where nobody has measured
POSITIONS = 512  # of the Backbone's context in the middle of a reply
THOUGHTS = 1024  # of the Reasoner's: several turns of a conversation
CODEC_BYTES, CODEC_FLOPS, CODEC_STATE = 160e6, 0.8e9, 2.1e6 * 4  # weights; a frame of a stream; a slot
TOWER_FLOPS_PER_S = 2 * 0.64e9 * 50  # the audio encoder, of a second of question
AUDIO_TOKENS_HZ, PROMPT_TOKENS, VOICE_POSITIONS = 25, 50, 200
PROCESS_BYTES = 0.6e9  # a CUDA context and its libraries


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: float
    bytes_per_s: float
    flops_per_s: float
    source: str

    def ms(self, weight_bytes: float, flops: float) -> float:
        return 1e3 * max(weight_bytes / self.bytes_per_s, flops / self.flops_per_s) / EFFICIENCY


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("h200", 141e9, 4.3e12, 790e12, "4.3 TB/s and 790 TFLOP/s, measured before the work began"),
        Gpu("h100", 80e9, 3.35e12, 990e12, "3.35 TB/s and 990 TFLOP/s, the data sheet's"),
        Gpu("b200", 180e9, 8.0e12, 2250e12, "8 TB/s and 2250 TFLOP/s, the data sheet's"),
    )
}


@dataclass(frozen=True)
class Shape:
    """Bytes of weights and of a slot, and the operations of a frame of one stream."""

    weights_bytes: float
    slot_bytes: float
    read_bytes: float  # of a slot, per frame
    flops: float


@cache
def shapes(size: Size = "full") -> dict[str, Shape]:
    """By stage."""
    a = Architecture.of(config(size), generation_config(size))
    item = 2 if size == "full" else 4
    backbone, decoder, reasoner = parameters(a.backbone), parameters(a.decoder), parameters(a.reasoner)
    heads = a.codebook_size * a.decoder.hidden * (CODEBOOKS - 1)
    books = a.audio_vocab * CODEBOOKS * a.backbone.hidden
    words = a.text_vocab * a.reasoner.hidden
    depth = (decoder + a.codebook_size * a.decoder.hidden) * (CODEBOOKS - 1)
    return {
        "Backbone": Shape(
            (backbone + books + a.codebook_size * a.backbone.hidden + words) * item,
            kv(a.backbone) * a.backbone.positions * item,
            kv(a.backbone) * POSITIONS * item,
            2 * 2 * backbone,
        ),
        "Decoder": Shape((decoder + heads) * item, 0.0, 0.0, 2 * depth),
        "Reasoner": Shape((reasoner + words + 0.64e9) * item, kv(a.reasoner) * THOUGHTS * item, 0.0, reasoner + words),
        "Codec": Shape(CODEC_BYTES, CODEC_STATE, CODEC_STATE, CODEC_FLOPS),
    }


def parameters(stack: StackShape) -> int:
    width = stack.heads * stack.head_dim
    attention = stack.hidden * (2 * width + 2 * stack.kv_heads * stack.head_dim)
    return stack.layers * (attention + 3 * stack.hidden * stack.intermediate)


def kv(stack: StackShape) -> int:
    """Elements of one position."""
    return 2 * stack.layers * stack.kv_heads * stack.head_dim


def curve(stage: str, gpu: Gpu, size: Size = "full") -> Curve:
    """Milliseconds of a frame: weights read once a pass, slots once, and half a text step for the Reasoner."""
    shape = shapes(size)[stage]
    passes = CODEBOOKS - 1 if stage == "Decoder" else 1
    halves = 0.5 if stage == "Reasoner" else 1.0
    source = f"roofline of {gpu.name} at {EFFICIENCY:.0%}"
    return Curve.of(
        [
            Point(n, gpu.ms(halves * (shape.weights_bytes * passes + n * shape.read_bytes), n * shape.flops), source)
            for n in BATCHES
        ]
    )


def first_work_ms(question_s: float, gpu: Gpu, size: Size = "full") -> dict[str, float]:
    """What a new turn costs each stage before its first audio: the question read, the voice's prompt, first steps."""
    found = shapes(size)
    tokens = AUDIO_TOKENS_HZ * question_s + PROMPT_TOKENS
    read = 2 * tokens * found["Reasoner"].flops + TOWER_FLOPS_PER_S * question_s
    one = {name: curve(name, gpu, size).ms(1) for name in found}
    return {
        "Reasoner": gpu.ms(found["Reasoner"].weights_bytes, read) + 2 * one["Reasoner"],
        "Backbone": gpu.ms(found["Backbone"].weights_bytes, VOICE_POSITIONS * found["Backbone"].flops / 2),
        "Decoder": one["Decoder"],
        "Codec": one["Codec"],
    }
