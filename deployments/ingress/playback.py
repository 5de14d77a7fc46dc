"""A reply as its listener would play it: the gaps between its pieces, and the moments with nothing left to play."""

MOST_GAPS = 512  # kept of one reply, for a histogram; two minutes of speech


class Playback:
    """A player that starts with the first audio it is given. Times are seconds on one clock.

    A client that takes its audio late has late audio: what it feels counts, whoever is to blame.
    """

    def __init__(self) -> None:
        self.gaps_s: list[float] = []
        self.underruns = 0
        self.underrun_s = 0.0
        self._last = self._played_until = 0.0
        self._playing = False

    def add(self, now: float, seconds: float) -> None:
        """A piece of audio is there, so many seconds long."""
        if not self._playing:
            self._playing, self._played_until = True, now
        else:
            if len(self.gaps_s) < MOST_GAPS:
                self.gaps_s.append(now - self._last)
            if now > self._played_until:
                self.underruns += 1
                self.underrun_s += now - self._played_until
                self._played_until = now
        self._last = now
        self._played_until += seconds
