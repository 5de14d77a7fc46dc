"""The user's side of a session: the sound that was appended, and the turns that are found in it."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from chroma_models.errors import TooLarge
from chroma_models.types import Audio
from deployments.ingress.live_audio import AudioFormat
from deployments.ingress.services import Services
from deployments.ingress.session.input_audio import MS_SAMPLES, InputAudio
from deployments.ingress.session.settings import SessionSettings, TurnDetection
from deployments.ingress.session.turn_taking import Began, TurnTaking
from deployments.ingress.session.vad import VadStream

SMALL_APPEND = 1 << 16  # bytes; more is resampled beside the event loop


class Listening:
    """Samples are numbered from the session's start, at LISTEN_RATE_HZ.

    began, ended: told the first sample of a turn, and the first after it, while turn detection is on.
    """

    def __init__(
        self,
        services: Services,
        settings: SessionSettings,
        began: Callable[[int], None],
        ended: Callable[[int], None],
    ) -> None:
        self._services, self._began, self._ended = services, began, ended
        self._input = InputAudio(settings.input)
        self._turns: TurnTaking | None = None
        self._vad: VadStream | None = None
        self._detect(settings.turn_detection)

    @property
    def format(self) -> AudioFormat:
        return self._input.format

    @property
    def detection(self) -> TurnDetection | None:
        return self._turns.settings if self._turns else None

    @property
    def speaking(self) -> bool:
        return self._turns is not None and self._turns.speaking

    @property
    def start(self) -> int:
        """First sample that is kept."""
        return self._input.start

    @property
    def end(self) -> int:
        """First sample that is still to come."""
        return self._input.end

    @property
    def seconds(self) -> float:
        """Of sound that is kept."""
        return self._input.seconds

    def follow(self, settings: SessionSettings) -> None:
        """Sound that is appended from now on has their format, and its turns are found as they say."""
        if settings.input != self._input.format:
            self._hear(self._input.switch(settings.input))
        if settings.turn_detection != self.detection:
            self._detect(settings.turn_detection)

    async def append(self, data: bytes) -> None:
        """Raises InvalidAudio, TooLarge, StageUnavailable. While turns are found, sound beyond max_input_s is dropped,
        oldest first, and a client that sends faster than is heard waits here."""
        max_s = self._services.config.session.max_input_s
        held_s = 0.0 if self._vad is not None else self._input.seconds
        if held_s + len(data) / self._input.format.bytes_per_s > max_s:
            raise TooLarge(
                f"The input audio buffer holds at most {max_s:g} s; commit or clear it before you append more.", "audio"
            )
        hear = partial(self._input.hear, data, self._vad is None)
        samples = hear() if len(data) < SMALL_APPEND else await self._services.off_loop(hear)
        self._input.keep(samples)
        if self._vad is not None:
            self._input.forget_before(self._input.end - _samples(max_s))
            self._vad.listen(samples)
            await self._vad.caught_up()

    def settle(self) -> None:
        """Nothing follows what was appended: it is all there now."""
        self._hear(self._input.flush())

    def take(self, start: int, end: int) -> Audio:
        """Samples start..end; they and all before them are kept no longer."""
        return self._input.cut(start, end)

    def keep_from(self, sample: int) -> None:
        self._input.forget_before(sample)

    def restart(self) -> None:
        """What was said until now has been taken; a turn under way begins anew."""
        if self._turns is not None:
            self._turns.restart(self._input.end)

    async def finish(self) -> None:
        """Nothing more will be appended: a turn under way ends with the sound."""
        if self._vad is None:
            return
        self.settle()
        await self._vad.heard_all()
        if self._vad is not None and self.speaking:
            self.restart()
            self._ended(self._input.end)

    def close(self) -> None:
        self._detect(None)

    def _hear(self, samples: NDArray[np.int16]) -> None:
        if self._vad is not None:
            self._vad.listen(samples)

    def _detect(self, detection: TurnDetection | None) -> None:
        """Find turns from the next sample on, or no longer."""
        if self._vad is not None:
            self._vad.close()
        self._vad, self._turns = None, None
        if detection is not None:
            self._turns = TurnTaking(detection, self._input.end)
            self._vad = self._services.vad.stream(self._heard)

    def _heard(self, probability: float) -> None:
        """Of the next chunk; see TurnTaking."""
        assert self._turns is not None
        turn = self._turns.heard(probability)
        if isinstance(turn, Began):
            self._began(turn.sample)
        elif turn is not None:
            self._ended(turn.sample)
        elif not self._turns.speaking:
            kept = _samples(self._services.config.session.max_silence_s)
            self._input.forget_before(self._turns.position - kept)


def _samples(seconds: float) -> int:
    return int(seconds * 1000) * MS_SAMPLES
