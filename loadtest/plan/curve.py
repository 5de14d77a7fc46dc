"""Time a stage needs, by the number of streams it serves at once, and where each figure comes from."""

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    streams: float
    ms: float
    source: str  # "measured: FILE", "roofline: ...", "calibrated: ..."


@dataclass(frozen=True)
class Curve:
    """Straight lines between points, and beyond the last one on along its slope. No fewer streams take longer."""

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        """Raises ValueError."""
        streams = [point.streams for point in self.points]
        if not streams or streams != sorted(set(streams)):
            raise ValueError("A curve needs points, one for each number of streams, in their order.")

    @classmethod
    def of(cls, points: list[Point]) -> "Curve":
        """Of several figures for one number of streams the smallest; noise that falls is held level."""
        best: dict[float, Point] = {}
        for point in points:
            if point.streams not in best or point.ms < best[point.streams].ms:
                best[point.streams] = point
        rising: list[Point] = []
        for streams in sorted(best):
            least = rising[-1].ms if rising else 0.0
            rising.append(Point(streams, max(least, best[streams].ms), best[streams].source))
        return cls(tuple(rising))

    def ms(self, streams: float) -> float:
        points = self.points
        if len(points) == 1 or streams <= points[0].streams:
            return points[0].ms * (1.0 if len(points) > 1 else max(1.0, streams / points[0].streams))
        at = min(bisect_left([point.streams for point in points], streams), len(points) - 1)
        before, after = points[at - 1], points[at]
        slope = (after.ms - before.ms) / (after.streams - before.streams)
        return after.ms + (streams - after.streams) * slope

    def source(self, streams: float) -> str:
        """Where the figure at so many streams comes from."""
        at = min(bisect_left([point.streams for point in self.points], streams), len(self.points) - 1)
        beyond = streams > self.points[-1].streams
        return self.points[at].source + (f", extended beyond {self.points[-1].streams:g} streams" if beyond else "")
