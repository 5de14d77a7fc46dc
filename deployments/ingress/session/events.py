"""What a session has to tell its client, in the order it happened. A protocol spells each as it needs.

One response: ResponseStarted, then, once there is something to hear or read, OutputStarted, Delta*, OutputDone; at last
ResponseDone, after which nothing of it comes. A response that fails or is cancelled early has no output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deployments.ingress.session.items import Item, Piece, Reply, Speech
from deployments.ingress.session.settings import SessionSettings

ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]
Reason = Literal["turn_detected", "client_cancelled", "max_output_tokens"]


@dataclass(frozen=True, slots=True)
class Aside:
    """What the protocol has to say for itself, in its place among the events: an error, the new settings."""

    payload: Any


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The user speaks. Milliseconds are of the audio appended so far, padding before the speech included."""

    item_id: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The user has been silent for as long as settings say."""

    item_id: str
    end_ms: int


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """Nobody has spoken for long; the silence itself becomes an item and is answered."""

    item_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class AudioCommitted:
    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class AudioCleared:
    pass


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """The user's or the system's, complete as it comes."""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """audio_end_ms is what was asked for, but no more than there is."""

    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    item: Item


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """in_conversation: its output becomes an item; else it is out-of-band."""

    id: str
    in_conversation: bool
    metadata: Mapping[str, str] | None
    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    response: ResponseInfo


@dataclass(frozen=True, slots=True)
class OutputStarted:
    """item is in_progress and empty."""

    response: ResponseInfo
    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class Delta:
    """Words and the audio that speaks them, in the response's output format (none where it answers in writing).

    Taking it from the session counts as having sent it: only what was taken becomes history.
    """

    response: ResponseInfo
    item_id: str
    pieces: tuple[Piece, ...]
    audio: bytes
    frames: int
    start_frame: int

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class OutputDone:
    """item is completed, or incomplete with what was sent of it."""

    response: ResponseInfo
    item: Item
    previous_item_id: str | None

    @property
    def text(self) -> str:
        """All words of it that were sent."""
        return "".join(p.said if isinstance(p, Reply) else p.text for p in self.item.parts if not isinstance(p, Speech))


@dataclass(frozen=True, slots=True)
class ResponseUsage:
    """Tokens; a spoken answer counts one for each frame that was sent."""

    prompt_tokens: int = 0
    prompt_audio_tokens: int = 0
    cached_tokens: int = 0
    text_tokens: int = 0
    audio_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """error where status is failed. report: spoken.Spoken.report, with what was measured, and
    its provenance."""

    response: ResponseInfo
    status: ResponseStatus
    reason: Reason | None
    error: Exception | None
    output: tuple[Item, ...]
    usage: ResponseUsage
    report: Mapping[str, Any] = field(default_factory=dict)


Event = (
    Aside
    | SpeechStarted
    | SpeechStopped
    | IdleTimeout
    | AudioCommitted
    | AudioCleared
    | ItemAdded
    | ItemDeleted
    | ItemTruncated
    | ItemRetrieved
    | ResponseStarted
    | OutputStarted
    | Delta
    | OutputDone
    | ResponseDone
)
