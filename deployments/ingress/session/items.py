"""What a conversation is made of."""

from dataclasses import dataclass, replace
from typing import Literal

from chroma_models.types import FRAMES_PER_S, Audio

FRAME_MS = round(1000 / FRAMES_PER_S)

Role = Literal["system", "user", "assistant"]
Status = Literal["completed", "incomplete", "in_progress"]


@dataclass(frozen=True, slots=True)
class Words:
    """Written, by anybody."""

    text: str


@dataclass(frozen=True, slots=True)
class Speech:
    """Spoken by the user. audio is None once it has been forgotten; transcript is what the client says it was."""

    audio: Audio | None
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """The words that the model spoke from a frame on."""

    frame: int
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Spoken by the model, and sent: frames, and the pieces they spoke.

    heard_frames: no more than these were played, as far as the client said.
    """

    pieces: tuple[Piece, ...] = ()
    frames: int = 0
    heard_frames: int | None = None

    @property
    def text(self) -> str:
        """The words whose frames were played, as far as anybody said."""
        heard = self.frames if self.heard_frames is None else self.heard_frames
        return "".join(piece.text for piece in self.pieces if piece.frame < heard)

    @property
    def said(self) -> str:
        """All words that were sent."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def audio_ms(self) -> int:
        return self.frames * FRAME_MS

    def plus(self, pieces: tuple[Piece, ...], frames: int) -> "Reply":
        return Reply(self.pieces + pieces, self.frames + frames, self.heard_frames)

    def heard_until(self, audio_end_ms: int) -> "Reply":
        """Of a frame that was cut short nothing counts. What was not heard before is not heard now."""
        heard = min(self.frames, audio_end_ms // FRAME_MS)
        return replace(self, heard_frames=heard if self.heard_frames is None else min(heard, self.heard_frames))


Part = Words | Speech | Reply


@dataclass(frozen=True, slots=True)
class Item:
    """One thing said."""

    id: str
    role: Role
    parts: tuple[Part, ...]
    status: Status = "completed"
