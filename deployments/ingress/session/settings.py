"""What a session is told about how to listen and how to answer."""

from dataclasses import dataclass, field
from typing import Literal

from chroma_models.types import EncodedVoice
from deployments.ingress.live_audio import PCM_24K, AudioFormat

LEAST_SILENCE_MS = 64  # that ends a turn: two chunks of the network that listens
LONGEST_MS = 60_000  # of such silence, and of padding
METADATA_PAIRS, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 16, 64, 512  # of a response


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """The user's turns are found by listening."""

    threshold: float = 0.5  # probability of speech, 0..1
    prefix_padding_ms: int = 300  # kept from before the first speech
    silence_duration_ms: int = 500  # that ends a turn; less splits sentences at their commas
    idle_timeout_ms: int | None = None  # silence after a reply's end that is answered too
    create_response: bool = True  # answer each turn
    interrupt_response: bool = True  # stop the running response when the user speaks


@dataclass(frozen=True, slots=True)
class Truncation:
    """What becomes of a conversation longer than the Reasoner reads: see history.py.

    keep: share of the room that is used again when something has to go; less means that it happens less often.
    """

    mode: Literal["auto", "disabled"] = "auto"
    keep: float = 1.0


@dataclass(frozen=True, slots=True)
class Draw:
    """How speech is drawn; None is the server's default, and a seed of its own for each response."""

    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    text_temperature: float | None = None


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Complete: a change is a whole new one. A response may have one of its own."""

    instructions: str = ""
    voice: EncodedVoice | None = None  # None is the built-in one
    voice_name: str = "default"  # what the client calls it
    input: AudioFormat = PCM_24K
    output: AudioFormat = PCM_24K
    speaks: bool = True  # False: answers in writing alone
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    max_text_tokens: int | None = None
    max_reply_s: float | None = None
    draw: Draw = field(default_factory=Draw)
    truncation: Truncation = field(default_factory=Truncation)
