"""What a listener hears: first audio, real-time factor and underruns of one streamed reply."""

from dataclasses import dataclass

RATE_HZ = 24_000


@dataclass
class Playback:
    """A player that starts with the first audio it gets. Times are seconds on one clock."""

    requested_at: float
    first_audio_at: float | None = None
    last_audio_at: float | None = None
    audio_s: float = 0.0
    underrun_s: float = 0.0
    underruns: int = 0
    longest_underrun_s: float = 0.0
    longest_gap_s: float | None = None  # between two pieces
    _played_until: float = 0.0  # when the audio so far will have been played

    def heard(self, pcm_bytes: int, now: float) -> None:
        """int16 mono audio arrived."""
        seconds = pcm_bytes / 2 / RATE_HZ
        if self.first_audio_at is None:
            self.first_audio_at = self._played_until = now
        else:
            assert self.last_audio_at is not None
            self.longest_gap_s = max(self.longest_gap_s or 0.0, now - self.last_audio_at)
        if now > self._played_until:
            self.underruns += 1
            self.underrun_s += now - self._played_until
            self.longest_underrun_s = max(self.longest_underrun_s, now - self._played_until)
            self._played_until = now
        self._played_until += seconds
        self.audio_s += seconds
        self.last_audio_at = now

    @property
    def silent_from(self) -> float:
        """When all the audio so far will have been played."""
        return self._played_until

    @property
    def first_audio_s(self) -> float | None:
        return None if self.first_audio_at is None else self.first_audio_at - self.requested_at

    @property
    def rtf(self) -> float | None:
        """Generation time over audio duration, from the request to the last audio."""
        if self.last_audio_at is None or not self.audio_s:
            return None
        return (self.last_audio_at - self.requested_at) / self.audio_s
