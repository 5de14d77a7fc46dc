"""Whether a recording is fit to make a voice of, judged on what was recorded and not on what resampling makes of it."""

import numpy as np
from numpy.typing import NDArray

from chroma_models.errors import InvalidVoice
from deployments.ingress.config import AudioLimits

Samples = NDArray[np.float32]

PIECE_S = 0.02
RAIL = 0.999  # of full scale; a sample this loud between two others as loud is part of a flat top
CANCELLED = 0.25  # of the louder channel's level; one silent channel of two leaves 0.5


class ClipCheck:
    """hear() every block of a clip, then verdict(). Raises InvalidVoice, which says what to change."""

    def __init__(self, limits: AudioLimits, param: str) -> None:
        self._limits, self._param = limits, param
        self._rate_hz = 0
        self._frames = 0
        self._flat = 0
        self._sound_pieces = 0
        self._rest = np.zeros(0, np.float32)  # mono samples that fill no piece yet
        self._before = np.zeros((0, 0), bool)  # whether the last two frames were at the rail
        self._energy = np.zeros(0)  # of each channel
        self._mono_energy = 0.0
        self._product = 0.0  # of the two channels

    @property
    def audio_s(self) -> float:
        return self._frames / self._rate_hz if self._rate_hz else 0.0

    def hear(self, block: Samples, rate_hz: int) -> None:
        """float32 [n, channels], as decoded."""
        if not self._rate_hz:
            self._rate_hz = rate_hz
            self._energy = np.zeros(block.shape[1])
            self._before = np.zeros((2, block.shape[1]), bool)
            if rate_hz < self._limits.min_voice_rate_hz:
                self._refuse(
                    f"was recorded at {rate_hz} Hz; record at {self._limits.min_voice_rate_hz} Hz or more "
                    "(resampling brings back nothing)"
                )
        self._frames += len(block)
        if self.audio_s > self._limits.max_voice_s:
            self._refuse(f"is longer than {self._limits.max_voice_s:g} s; cut it to {self._wanted_s} of one speaker")
        self._count_flat(block)
        mono = block.mean(axis=1)
        self._energy += np.square(block, dtype=np.float64).sum(axis=0)
        self._mono_energy += float(np.square(mono, dtype=np.float64).sum())
        if block.shape[1] == 2:
            self._product += float(block[:, 0].astype(np.float64) @ block[:, 1])
        self._count_sound(mono)

    def verdict(self) -> None:
        limits, sound_s = self._limits, self._sound_pieces * PIECE_S
        if self.audio_s < limits.min_voice_s:
            self._refuse(f"lasts {self.audio_s:.1f} s; send {self._wanted_s} of one speaker")
        self._check_channels()
        if sound_s < limits.min_voice_sound_s:
            self._refuse(
                f"holds {sound_s:.1f} s of sound, the rest is quieter than {limits.silence_dbfs:g} dBFS; at least "
                f"{limits.min_voice_sound_s:g} s are needed: speak louder, or check the microphone"
            )
        clipped = self._flat / (self._frames * len(self._energy))
        if clipped > limits.max_voice_clipped:
            self._refuse(f"is clipped in {clipped:.1%} of its samples; record it again at a lower level")

    @property
    def _wanted_s(self) -> str:
        return f"{self._limits.min_voice_s:g} to {self._limits.max_voice_s:g} s"

    def _check_channels(self) -> None:
        if len(self._energy) != 2:
            return
        louder, quieter = max(self._energy), min(self._energy)
        if self._mono_energy < CANCELLED**2 * louder:
            self._refuse("has two channels that cancel each other when mixed; send one of them as mono")
        both_sound = quieter > 0.01 * louder  # within 20 dB
        if both_sound and self._product < self._limits.min_voice_correlation * float(np.sqrt(louder * quieter)):
            self._refuse("has two channels that hold different sounds; send the speaker's one as mono")

    def _count_flat(self, block: Samples) -> None:
        """Samples with two others at the rail right before them; the first two of a flat top are not counted."""
        at_rail = np.concatenate([self._before, np.abs(block) >= RAIL])
        self._flat += int(np.count_nonzero(at_rail[2:] & at_rail[1:-1] & at_rail[:-2]))
        self._before = at_rail[-2:]

    def _count_sound(self, mono: Samples) -> None:
        size = max(1, round(PIECE_S * self._rate_hz))
        samples = np.concatenate([self._rest, mono])
        whole = len(samples) // size * size
        levels = np.square(samples[:whole], dtype=np.float64).reshape(-1, size).mean(axis=1)
        self._sound_pieces += int(np.count_nonzero(levels > 10 ** (self._limits.silence_dbfs / 10)))
        self._rest = samples[whole:]

    def _refuse(self, why: str) -> None:
        raise InvalidVoice(f"The recording {why}.", self._param)
