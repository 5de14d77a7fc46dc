"""Audio that comes and goes in pieces: from a client's encoding to what the models hear, and back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from chroma_models.errors import InvalidAudio
from chroma_models.types import LISTEN_RATE_HZ, SAMPLE_RATE_HZ
from deployments.ingress import g711
from deployments.ingress.audio_out import to_int16

Encoding = Literal["pcm16", "mulaw", "alaw"]


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Headerless mono samples: int16 little-endian, or G.711."""

    encoding: Encoding = "pcm16"
    rate_hz: int = SAMPLE_RATE_HZ

    @property
    def sample_bytes(self) -> int:
        return 2 if self.encoding == "pcm16" else 1

    @property
    def bytes_per_s(self) -> int:
        return self.rate_hz * self.sample_bytes


PCM_24K = AudioFormat()
MULAW_8K = AudioFormat("mulaw", 8_000)
ALAW_8K = AudioFormat("alaw", 8_000)

LAZY_S = 1.0
NOTHING: NDArray[np.int16] = np.zeros(0, np.int16)


class Hearing:
    """A stream of bytes in one format, as int16 samples at LISTEN_RATE_HZ.

    The samples are those that the whole stream, resampled at once, would give; they come some 25 ms late (58 ms at
    8 kHz), or LAZY_S where nobody waits for them, until flush().
    """

    def __init__(self, form: AudioFormat) -> None:
        self.format = form
        self._begin()

    @property
    def pending_s(self) -> float:
        """Heard, and not given out yet."""
        return self._heard / self.format.rate_hz - self._given / LISTEN_RATE_HZ

    def hear(self, data: bytes, lazily: bool = False) -> NDArray[np.int16]:
        """lazily: many small pieces are resampled as one, which takes a fraction. Raises InvalidAudio for half a
        sample."""
        if len(data) % self.format.sample_bytes:
            raise InvalidAudio(f"{len(data)} bytes are no whole number of 16-bit samples; append whole samples.")
        self._heard += len(data) // self.format.sample_bytes
        self._waiting += data
        if lazily and len(self._waiting) < LAZY_S * self.format.bytes_per_s:
            return NOTHING
        return self._resampled(last=False)

    def flush(self) -> NDArray[np.int16]:
        """What has not been given out; the next sample begins a new stream."""
        rest = self._resampled(last=True)
        self._begin()
        return rest

    def _begin(self) -> None:
        self._resampler = _resampler(self.format.rate_hz, LISTEN_RATE_HZ)
        self._waiting = bytearray()
        self._heard, self._given = 0, 0  # samples

    def _resampled(self, last: bool) -> NDArray[np.int16]:
        data, self._waiting = bytes(self._waiting), bytearray()
        if self.format.encoding == "pcm16":
            samples = np.frombuffer(data, "<i2")
        else:
            samples = g711.expand(data, self.format.encoding)
        if self._resampler is not None:
            floats = samples.astype(np.float32) / np.float32(32768.0)
            samples = to_int16(self._resampler.resample_chunk(floats, last=last))
        self._given += len(samples)
        return samples


class Voicing:
    """A reply's samples, float32 at SAMPLE_RATE_HZ, as bytes in one format."""

    def __init__(self, form: AudioFormat) -> None:
        self.format = form
        self._resampler = _resampler(SAMPLE_RATE_HZ, form.rate_hz)

    def say(self, pcm: bytes, last: bool = False) -> bytes:
        """last: give what the resampler still holds, too."""
        samples = np.frombuffer(pcm, "<f4")
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        steps = to_int16(samples)
        return steps.tobytes() if self.format.encoding == "pcm16" else g711.compress(steps, self.format.encoding)


def resample_int16(samples: NDArray[np.int16], source_hz: int, rate_hz: int) -> NDArray[np.int16]:
    """All at once; for a worker thread."""
    if source_hz == rate_hz:
        return samples
    return to_int16(soxr.resample(samples.astype(np.float32) / np.float32(32768.0), source_hz, rate_hz))


def _resampler(source_hz: int, rate_hz: int) -> soxr.ResampleStream | None:
    return None if source_hz == rate_hz else soxr.ResampleStream(source_hz, rate_hz, 1, dtype="float32")
