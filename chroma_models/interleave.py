"""Which positions a turn feeds the Backbone: the voice prompt, then one text pair per two frames.

    prompt | h0 e0 -> frame 0 | F(frame 0) -> 1 | F(frame 1) h1 e1 -> 2 | F(frame 2) -> 3 | F(frame 3) h2 e2 -> 4 ...

h_k is the Reasoner's hidden row k, e_k the embedding of its token k, F the embedding of a frame. After im_end's pair
every segment is one frame embedding.

A reply that outgrows the positions rolls over: the prompt stays, and of the reply only a recent window, as if it had
begun there: `prompt | h e -> (frame k) | F(k) -> ...`. Windows says where.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chroma_models.types import Frame, TextStep

FRAMES_PER_PAIR = 2
PAIR = 2  # positions of one text pair


def wants_pair(frame: int) -> bool:
    """Is a text pair due right before this frame (while the text lasts)?"""
    return frame % FRAMES_PER_PAIR == 0


def segment_positions(frame: int, pair: bool) -> int:
    """Positions fed to predict a frame: 2 for the first, then 1, or 3 with a pair."""
    return (1 if frame > 0 else 0) + (PAIR if pair else 0)


def spoken_steps(frames: Sequence[Frame]) -> list[TextStep]:
    """The text steps a turn's frames have consumed, in order."""
    return [frame.step for frame in frames if frame.step is not None]


@dataclass(frozen=True)
class Windows:
    """Where a reply rolls over. It depends on the prompt's length alone, so a resumed or batched turn agrees.

    A window is counted as if text never ended (two positions a frame), so that the Reasoner's speed changes no point.
    prompt     positions of the voice prompt
    positions  what a slot holds
    """

    prompt: int
    positions: int

    @property
    def frames(self) -> int:
        """Frames of one window, the first whole reply a slot can hold; even, so that a window begins with a pair."""
        return max(0, (self.positions - self.prompt + 1) // 4 * 2)

    @property
    def kept(self) -> int:
        """Frames that are fed again after a roll: the recent half of a window."""
        return self.frames // 4 * 2

    def start(self, frame: int) -> int:
        """The first frame of the window in which this frame is predicted."""
        if frame < self.frames:
            return 0
        stride = self.frames - self.kept
        return ((frame - self.frames) // stride + 1) * stride

    def rolls(self, frame: int) -> bool:
        """Does a new window begin right before this frame?"""
        return frame > 0 and self.start(frame) != self.start(frame - 1)


def prompt_positions(text_tokens: int, voice_frames: int) -> int:
    """text_start, the transcript, text_end, the voice's frames, and the zero vector."""
    return text_tokens + voice_frames + 3
