"""When the user's turn begins and ends, from the probability of speech in each chunk of sound."""

from dataclasses import dataclass

from chroma_models.types import LISTEN_RATE_HZ
from deployments.ingress.session.input_audio import MS_SAMPLES
from deployments.ingress.session.settings import TurnDetection

CHUNK_SAMPLES = 512  # 32 ms at LISTEN_RATE_HZ, as silero-vad hears
ONSET_CHUNKS = 2  # of speech that begin a turn: one alone is a click or a cough
HYSTERESIS = 0.15  # silence is that much below the threshold, as in silero-vad's own iterator
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True, slots=True)
class Began:
    """sample: first of the turn, padding included."""

    sample: int


@dataclass(frozen=True, slots=True)
class Ended:
    """sample: first after the turn, silence included."""

    sample: int


class TurnTaking:
    """Fed one probability for each CHUNK_SAMPLES from sample `position` on."""

    def __init__(self, settings: TurnDetection, position: int) -> None:
        self.settings = settings
        self.position = position
        self.speaking = False
        self._floor = position  # no turn begins before
        self._onset = 0  # chunks of speech in a row
        self._silent_since: int | None = None

    def heard(self, probability: float) -> Began | Ended | None:
        start = self.position
        self.position += CHUNK_SAMPLES
        if self.position <= self._floor:  # taken already, while it still waited to be heard
            return None
        if not self.speaking:
            return self._maybe_began(start, probability)
        return self._maybe_ended(start, probability)

    def restart(self, floor: int) -> None:
        """What was said until now has been taken; a turn under way begins anew."""
        self._floor = max(self._floor, floor)
        self.speaking = False
        self._onset = 0
        self._silent_since = None

    def _maybe_began(self, start: int, probability: float) -> Began | None:
        self._onset = self._onset + 1 if probability >= self.settings.threshold else 0
        if self._onset < ONSET_CHUNKS:
            return None
        self.speaking = True
        self._silent_since = None
        onset = start - (self._onset - 1) * CHUNK_SAMPLES
        return Began(max(self._floor, onset - self.settings.prefix_padding_ms * MS_SAMPLES))

    def _maybe_ended(self, start: int, probability: float) -> Ended | None:
        if probability >= self.settings.threshold:
            self._silent_since = None
        elif probability < max(LEAST_PROBABILITY, self.settings.threshold - HYSTERESIS):
            self._silent_since = start if self._silent_since is None else self._silent_since
        if self._silent_since is None:
            return None
        if self.position - self._silent_since < self.settings.silence_duration_ms * MS_SAMPLES:
            return None
        self.restart(self.position)
        return Ended(self.position)


CHUNK_S = CHUNK_SAMPLES / LISTEN_RATE_HZ
