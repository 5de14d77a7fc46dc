"""Speech and silence as a microphone brings them, int16 at 24 kHz."""

from functools import cache

import numpy as np
import soundfile
import soxr

from tests.deployments.graph import QUESTION

RATE_HZ = 24_000


@cache
def spoken() -> bytes:
    """Two seconds of a question; silence around it has been cut off."""
    samples, rate_hz = soundfile.read(QUESTION, dtype="float32")
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    resampled = soxr.resample(samples[loud[0] : loud[-1]], rate_hz, RATE_HZ)
    return np.clip(resampled * 32768, -32768, 32767).astype("<i2").tobytes()


def silence(seconds: float) -> bytes:
    return bytes(2 * int(seconds * RATE_HZ))


def seconds(pcm: bytes) -> float:
    return len(pcm) / 2 / RATE_HZ


def pieces(pcm: bytes, piece_s: float = 0.02) -> list[bytes]:
    step = 2 * int(piece_s * RATE_HZ)
    return [pcm[at : at + step] for at in range(0, len(pcm), step)]
