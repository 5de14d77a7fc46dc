"""What crosses from stage to stage. Frozen, picklable, and free of torch and Ray."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from chroma_models.errors import InvalidAudio

FRAMES_PER_S = 12.5
FRAME_SAMPLES = 1920  # at SAMPLE_RATE_HZ
SAMPLE_RATE_HZ = 24_000  # of every reply and every voice clip
LISTEN_RATE_HZ = 16_000  # of every question the Reasoner hears
CODEBOOKS = 8


@dataclass(frozen=True, slots=True)
class Text:
    """A written part of a message, inserted into the chat template as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Audio:
    """A spoken part of a message: mono little-endian samples at LISTEN_RATE_HZ.

    int16 as a rule; float32 where a clip came at that rate with finer steps, so that what was sent is what is heard.
    """

    pcm: bytes
    encoding: Literal["int16", "float32"] = "int16"

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype("<i2" if self.encoding == "int16" else "<f4")

    @property
    def count(self) -> int:
        """Samples."""
        return len(self.pcm) // self._dtype.itemsize

    @property
    def seconds(self) -> float:
        return self.count / LISTEN_RATE_HZ

    def newest(self, count: int) -> "Audio":
        """The last samples, at most count of them (and at least one)."""
        return Audio(self.pcm[-count * self._dtype.itemsize :], self.encoding)

    def samples(self) -> np.ndarray:
        """float32 [samples] in -1..1. Raises InvalidAudio for half a sample."""
        if len(self.pcm) % self._dtype.itemsize:
            raise InvalidAudio(f"{len(self.pcm)} bytes are no whole number of {self.encoding} samples.")
        samples = np.frombuffer(self.pcm, self._dtype)
        return samples.astype(np.float32) / 32768 if self.encoding == "int16" else samples


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    parts: tuple[Text | Audio, ...]


@dataclass(frozen=True, slots=True)
class EncodedVoice:
    """A reference clip as the Backbone reads it.

    codes is int16 little-endian, row-major [frames, CODEBOOKS]; digest names transcript and codes by content.
    """

    transcript: str
    codes: bytes
    digest: str

    @property
    def frames(self) -> int:
        return len(self.codes) // (2 * CODEBOOKS)


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy. Noise is a function of (seed, index, codebook) alone; seed is 0..2**63-1."""

    seed: int
    temperature: float = 0.0  # audio codes
    top_k: int = 50  # audio codes; 0 keeps all
    text_temperature: float = 0.0  # the reference's Reasoner is always greedy


@dataclass(frozen=True, slots=True)
class Limits:
    max_reply_s: float = 60.0
    max_text_tokens: int = 1024

    @property
    def max_frames(self) -> int:
        return int(self.max_reply_s * FRAMES_PER_S + 1e-6)


FAST_PRIORITY = 10  # of whole-file work; tenants move their turns up or down by less


@dataclass(frozen=True, slots=True)
class FairShare:
    """Whose turn it is, where turns wait for each other: key is a keyed hash of the tenant.

    Of those who wait, the one goes first whose tenant holds the fewest slots for its weight.
    """

    key: str = ""
    weight: float = 1.0


ONE_SHARE = FairShare()  # where tenants are not told apart


@dataclass(frozen=True, slots=True)
class Turn:
    """One spoken reply to make: the conversation so far, the voice to answer in, and how.

    affinity is a keyed hash of tenant and session: it routes to the Reasoner replica that holds the prefix, and salts
    its prefix cache. pace "fast" is whole-file work: lowest priority and no lead limit.
    """

    id: str
    affinity: str
    messages: tuple[Message, ...]
    voice: EncodedVoice
    sampling: Sampling
    limits: Limits = field(default_factory=Limits)
    pace: Literal["realtime", "fast"] = "realtime"
    priority: int = 0
    share: FairShare = ONE_SHARE
    deadline_s: float = 180.0  # wall time the whole turn may take
    losses: int = 0  # replicas it has lost so far
    trace: str = ""  # W3C traceparent of the span that its stages' spans belong to; empty: nobody traces it


@dataclass(frozen=True, slots=True)
class TextStep:
    """One token of the Reasoner. row is the final hidden row, float32 (or bf16 where the models run in bf16)."""

    index: int
    token: int
    row: bytes
    text: str

    def __reduce__(self) -> "tuple[type[TextStep], tuple[int, int, bytes, str]]":
        return TextStep, (self.index, self.token, self.row, self.text)  # a dataclass' own way takes three times as long


@dataclass(frozen=True, slots=True)
class Frame:
    """80 ms of speech: CODEBOOKS int16 codes, and the text step that was injected right before it, if one was."""

    index: int
    codes: bytes
    step: TextStep | None

    def __reduce__(self) -> "tuple[type[Frame], tuple[int, bytes, TextStep | None]]":
        return Frame, (self.index, self.codes, self.step)


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Decoded frames: float32 little-endian samples in -1..1, FRAME_SAMPLES per frame. No frames: a keep-alive."""

    frames: tuple[Frame, ...]
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """Enough to continue a turn anywhere with an equal fingerprint: checkpoint, dtype, position mode of the Backbone.

    Reasoner and Codec go on where what they depend on is equal: checkpoint and dtype, and the checkpoint.

    All frames from 0 on; of those older than half the Backbone's positions the text steps may have lost their rows.
    """

    frames: tuple[Frame, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A slot is held for the turn, here and in every stage before: first item of every stream, again after a loss."""

    fingerprint: str
    prompt_tokens: int = 0  # of the Reasoner's prompt, where the stage knows it
    losses: int = 0  # replicas that the turn has lost so far, this stage or one before it; told again when it grows


FinishReason = Literal["end_of_speech", "max_reply", "max_text_tokens", "positions", "cancelled"]


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    cached_tokens: int = 0
    text_tokens: int = 0
    frames: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """Last item of every stream that ended well. timing: seconds spent, by stage and phase ("backbone.prefill")."""

    reason: FinishReason
    usage: Usage
    timing: dict[str, float]
    losses: int = 0  # replicas that the turn has outlived
