"""Which positions a turn feeds the Backbone: the voice prompt, then one text pair per two frames.

    prompt | h0 e0 -> frame 0 | F(frame 0) -> 1 | F(frame 1) h1 e1 -> 2 | F(frame 2) -> 3 | F(frame 3) h2 e2 -> 4 ...

h_k is the Reasoner's hidden row k, e_k the embedding of its token k, F the embedding of a frame. After im_end's pair
every segment is one frame embedding.
"""

from collections.abc import Sequence

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


def prompt_positions(text_tokens: int, voice_frames: int) -> int:
    """text_start, the transcript, text_end, the voice's frames, and the zero vector."""
    return text_tokens + voice_frames + 3
