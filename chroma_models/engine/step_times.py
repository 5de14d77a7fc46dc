"""What steps and prefills cost here and now, learned from the ones that ran."""

TRUSTED = 8  # measurements before anything is forecast
FADING = 0.98  # weight of a measurement against the next one: about the last 50 count
OUTLIER = 4.0  # a step longer than this many forecasts (a pause of the machine) counts as this many
PRIOR_ROWS = 8.0  # where all measured steps had about the same rows: this many rows double a step


class StepTimes:
    """A line through recent steps, seconds = base_s + row_s * rows, and the seconds of one prefilled position.

    Written by the engine's thread, read by anyone: a reader sees one whole fit or the one before.
    """

    def __init__(self) -> None:
        self.measured = 0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # weight, rows, rows^2, seconds, rows * seconds
        self._line = (0.0, 0.0)
        self._position_s = 0.0
        self._prefills = 0

    @property
    def trusted(self) -> bool:
        return self.measured >= TRUSTED

    @property
    def position_s(self) -> float:
        return self._position_s

    def step_s(self, rows: int) -> float:
        """A step of so many rows; 0 while nothing is known."""
        base_s, row_s = self._line
        return base_s + row_s * rows if rows else 0.0

    def stepped(self, rows: int, seconds: float) -> None:
        if self.trusted:
            seconds = min(seconds, OUTLIER * self.step_s(rows))
        w, x, xx, y, xy = (FADING * s for s in self._sums)
        w, x, xx, y, xy = w + 1, x + rows, xx + rows * rows, y + seconds, xy + rows * seconds
        self._sums = (w, x, xx, y, xy)
        mean_x, mean_y = x / w, y / w
        spread = xx / w - mean_x**2
        if spread > 0.05 * mean_x**2:
            slope = (xy / w - mean_x * mean_y) / spread
            slope = min(max(slope, 0.0), mean_y / mean_x)
        else:
            slope = mean_y / (PRIOR_ROWS + mean_x)
        self._line = (mean_y - slope * mean_x, slope)
        self.measured += 1

    def prefilled(self, positions: int, seconds: float) -> None:
        each = max(seconds, 0.0) / positions
        if self._prefills >= TRUSTED:
            each = min(each, OUTLIER * self._position_s)
        weight = max(1 / (self._prefills + 1), 0.1)
        self._position_s += weight * (each - self._position_s)
        self._prefills += 1
