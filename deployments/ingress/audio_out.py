"""Samples as the models make them, to files as clients play them. Meant for a worker thread."""

import io
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from chroma_models.types import SAMPLE_RATE_HZ

OutputFormat = Literal["wav", "mp3", "flac", "opus", "pcm16"]

# opus is Ogg Opus; its header carries the encoder's delay, so players cut it and the length is exact
CODINGS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}


def to_pcm16(pcm: bytes) -> bytes:
    """float32 samples -> int16 little-endian."""
    return to_int16(np.frombuffer(pcm, "<f4")).tobytes()


def encode(pcm: bytes, form: OutputFormat, comment: str = "") -> bytes:
    """A whole reply, float32 mono at 24 kHz, as a file; pcm16 has no header, and no comment."""
    samples = to_int16(np.frombuffer(pcm, "<f4"))
    if form == "pcm16":
        return samples.tobytes()
    container, coding = CODINGS[form]
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", SAMPLE_RATE_HZ, 1, coding, format=container) as sink:
        if comment:
            sink.comment = comment
        sink.write(samples)
    return file.getvalue()


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """The nearest steps, clipped: the inverse of dividing by 32768."""
    steps: NDArray[np.int16] = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return steps
