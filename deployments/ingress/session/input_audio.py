"""What the microphone brought since the last turn."""

import numpy as np
from numpy.typing import NDArray

from chroma_models.types import LISTEN_RATE_HZ, Audio
from deployments.ingress.live_audio import AudioFormat, Hearing

MS_SAMPLES = LISTEN_RATE_HZ // 1000


class InputAudio:
    """int16 samples at LISTEN_RATE_HZ, numbered from the session's start."""

    def __init__(self, form: AudioFormat) -> None:
        self._hearing = Hearing(form)
        self._kept = bytearray()
        self._start = 0  # number of the first sample kept

    @property
    def format(self) -> AudioFormat:
        return self._hearing.format

    @property
    def start(self) -> int:
        return self._start

    @property
    def end(self) -> int:
        """Number of the sample that comes next."""
        return self._start + len(self._kept) // 2

    @property
    def seconds(self) -> float:
        """Held, what the resampler still holds included."""
        return (self.end - self._start) / LISTEN_RATE_HZ + self._hearing.pending_s

    def hear(self, data: bytes, lazily: bool) -> NDArray[np.int16]:
        """The samples that these bytes brought. Raises InvalidAudio. Keeps nothing yet, so a thread may do it.

        lazily: nobody listens to each; see Hearing.
        """
        return self._hearing.hear(data, lazily)

    def keep(self, samples: NDArray[np.int16]) -> None:
        if len(samples):
            self._kept += samples.tobytes()

    def flush(self) -> NDArray[np.int16]:
        """Nothing follows what has been appended: keeps, and returns, what the resampler held."""
        rest = self._hearing.flush()
        self.keep(rest)
        return rest

    def switch(self, form: AudioFormat) -> NDArray[np.int16]:
        """What comes from now on is in another format; flushes."""
        rest = self.flush()
        self._hearing = Hearing(form)
        return rest

    def cut(self, start: int, end: int) -> Audio:
        """Samples start..end, of which those that are kept; they and all before them are forgotten."""
        first = max(0, start - self._start)
        last = max(first, end - self._start)
        audio = Audio(bytes(self._kept[2 * first : 2 * last]))
        self.forget_before(end)
        return audio

    def forget_before(self, sample: int) -> None:
        count = min(max(0, sample - self._start), len(self._kept) // 2)
        del self._kept[: 2 * count]
        self._start += count
