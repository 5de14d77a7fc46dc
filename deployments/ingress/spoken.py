"""What a turn has said so far, as its items arrive."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from chroma_models.errors import ChromaError, StageUnavailable
from chroma_models.types import FRAME_SAMPLES, FRAMES_PER_S, SAMPLE_RATE_HZ, AudioChunk, Finished
from deployments.ingress.playback import Playback
from deployments.ingress.sanity import SanityLimits, Sound

FRAME_BYTES = 4 * FRAME_SAMPLES


class Spoken:
    """Counts, words, codes and times of one reply. Times are seconds since the request arrived."""

    def __init__(self, clock: Callable[[], float], began: float, sanity: SanityLimits) -> None:
        self._clock, self._began = clock, began
        self.playback, self.sound = Playback(), Sound(sanity)
        self.opened_s = 0.0
        self.first_audio_s: float | None = None
        self.ended_s = 0.0
        self.frames = 0
        self.text_tokens = 0
        self.text = ""
        self.codes = bytearray()
        self.finished: Finished | None = None

    def open(self) -> None:
        self.opened_s = self._clock() - self._began

    def add(self, chunk: AudioChunk) -> tuple[str, bytes]:
        """The chunk's new words and samples, float32; frames that were here before are dropped.

        Raises StageUnavailable where frames are missing.
        """
        if len(chunk.pcm) != len(chunk.frames) * FRAME_BYTES:
            raise ChromaError(f"{len(chunk.frames)} frames came with {len(chunk.pcm)} bytes of audio.")
        words = ""
        known = 0
        for frame in chunk.frames:
            if frame.index < self.frames:
                known += 1
                continue
            if frame.index > self.frames:
                raise StageUnavailable("A part of the reply was lost.", 1.0)
            self.frames += 1
            self.codes += frame.codes
            if frame.step:
                words += frame.step.text
                self.text_tokens += 1
        self.text += words
        pcm, new = chunk.pcm[known * FRAME_BYTES :], chunk.frames[known:]
        if new:
            now = self._clock()
            if self.first_audio_s is None:
                self.first_audio_s = now - self._began
            self.playback.add(now, len(new) / FRAMES_PER_S)
            self.sound.add(new, pcm)
        return words, pcm

    def finish(self, finished: Finished) -> None:
        """Raises StageUnavailable where the turn was cancelled behind our back."""
        if finished.reason == "cancelled":
            raise StageUnavailable("The speech service gave the turn up.", 1.0)
        self.finished = finished
        self.ended_s = self._clock() - self._began

    @property
    def audio_s(self) -> float:
        return self.frames * FRAME_SAMPLES / SAMPLE_RATE_HZ

    @property
    def rtf(self) -> float | None:
        """Wall time of the turn over seconds of audio, once it has ended."""
        return (self.ended_s - self.opened_s) / self.audio_s if self.frames and self.ended_s else None

    def report(self, seed: int, with_codes: bool) -> dict[str, Any]:
        """Our `chroma` object: seconds, rounded to 0.1 ms. rtf is wall time of the turn over seconds of audio."""
        finished = self.finished
        report: dict[str, Any] = {
            "seed": seed,
            "first_audio_s": None if self.first_audio_s is None else round(self.first_audio_s, 4),
            "audio_s": self.audio_s,
            "rtf": None if self.rtf is None else round(self.rtf, 4),
            "finish": finished.reason if finished else None,
            "losses": finished.losses if finished else 0,
            "stages": {name: round(spent_s, 4) for name, spent_s in finished.timing.items()} if finished else {},
        }
        if with_codes:
            report["codes"] = b64encode(self.codes).decode("ascii")
        return report
