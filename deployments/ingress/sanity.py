"""Whether a reply sounds like speech at all: silence that does not end, flat tops, the same frames over and over."""

from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat

from chroma_models.config import Config
from chroma_models.types import FRAME_SAMPLES, FRAMES_PER_S, Frame

Fault = Literal["silence", "clipping", "loop"]
FAULTS: tuple[Fault, ...] = ("silence", "clipping", "loop")
FULL = 0.999  # of full scale; what lies above has a flat top


class SanityLimits(Config):
    """Beyond these a reply is counted as faulty and named in the log; it is spoken all the same."""

    silence_dbfs: float = Field(-60.0, le=-20, ge=-120)  # a frame whose root mean square is quieter is silent
    max_silence_s: PositiveFloat = 3.0  # in one piece; longer than any pause of a speaker
    max_clipped: float = Field(0.01, gt=0, le=1)  # share of samples at full scale; this much is heard
    max_loop_s: PositiveFloat = 2.0  # of frames that repeat those before, code for code; speech never does


class Sound:
    """One reply, checked as it passes: a look at each sample, and one at each frame's codes."""

    def __init__(self, limits: SanityLimits) -> None:
        self._limits = limits
        self._least = 10 ** (limits.silence_dbfs / 20)
        self._frames = self._clipped = 0
        self._silent = self._longest_silence = 0  # frames in a row
        self._seen: dict[bytes, int] = {}  # a frame's codes: where they came last
        self._period = self._loop = self._longest_loop = 0

    def add(self, frames: "tuple[Frame, ...] | list[Frame]", pcm: bytes) -> None:
        """pcm: float32, FRAME_SAMPLES for each of the frames."""
        samples = np.abs(np.frombuffer(pcm, "<f4").reshape(-1, FRAME_SAMPLES))
        self._clipped += int(np.count_nonzero(samples >= FULL))
        loud = np.sqrt(np.mean(np.square(samples), axis=1)) >= self._least
        for frame, is_loud in zip(frames, loud.tolist(), strict=True):
            self._silent = 0 if is_loud else self._silent + 1
            self._longest_silence = max(self._longest_silence, self._silent)
            period = self._frames - self._seen.get(frame.codes, self._frames)
            self._loop = self._loop + 1 if period and period == self._period else int(bool(period))
            self._period = period
            self._longest_loop = max(self._longest_loop, self._loop)
            self._seen[frame.codes] = self._frames
            self._frames += 1

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong with the reply so far."""
        limits = self._limits
        found: list[Fault] = []
        if self._longest_silence > limits.max_silence_s * FRAMES_PER_S:
            found.append("silence")
        elif self._longest_loop > limits.max_loop_s * FRAMES_PER_S:  # silence repeats itself, too
            found.append("loop")
        if self._clipped > limits.max_clipped * self._frames * FRAME_SAMPLES:
            found.append("clipping")
        return tuple(found)
