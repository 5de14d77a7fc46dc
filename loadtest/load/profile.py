"""How many callers there are over time.

In `steady` and `stairs` a Locust user is a caller, who is followed by another when he goes. In the open profiles it is
a line at which callers arrive by themselves, as a Poisson process, whether the ones before have been served or not: one
conversation in progress on average on a server that keeps up. Lines together are a Poisson process again, and so are
those of several workers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

Profile = Literal["steady", "stairs", "poisson", "ramp", "burst"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
OPEN: tuple[Profile, ...] = ("poisson", "ramp", "burst")
BURST_EVERY_S, BURST_S, BURST_BASE = 60.0, 15.0, 0.25  # a quarter of the lines, and all of them for 15 s a minute


def users_at(profile: Profile, second: float, peak: int, seconds: float) -> int | None:
    """Users so long after the start; None once it is over. Not for `stairs`, which asks what was heard."""
    if second >= seconds:
        return None
    if profile == "ramp":
        return max(1, round(peak * second / seconds))
    if profile == "burst":
        return peak if second % BURST_EVERY_S >= BURST_EVERY_S - BURST_S else max(1, round(BURST_BASE * peak))
    return peak


@dataclass(frozen=True)
class Level:
    """So many callers for a while. begin and end: of what counts, on the wall clock."""

    users: int
    begin: float
    end: float
    broken: tuple[str, ...]


@dataclass
class Stairs:
    """Up until the SLO breaks, then between the last that held and the first that broke, to within `fine` of it; at the
    end once far above, where nothing so large was tried: what a server gets done that is asked too much of.

    climb: by how much a level is larger than the one before, and the last than the first that broke.
    judge: what is broken of what ended in a span of the wall clock.
    """

    first: int
    most: int
    settle_s: float
    hold_s: float
    judge: Callable[[float, float], list[str]]
    climb: float = 1.5
    fine: float = 0.1
    levels: list[Level] = field(default_factory=list)
    _users: int = 0
    _since: float = 0.0

    def tick(self, now: float) -> int | None:
        """The users wanted now; None when the end is found."""
        if not self._users:
            self._go(self.first, now)
        if now >= self._since + self.settle_s + self.hold_s:
            begin = self._since + self.settle_s
            self.levels.append(Level(self._users, begin, now, tuple(self.judge(begin, now))))
            following = self._next()
            if following is None:
                return None
            self._go(following, now)
        return self._users

    def moved(self, now: float) -> None:
        """The users wanted have come (or gone) only now: the level counts from here."""
        self._since = max(self._since, now)

    @property
    def held(self) -> int:
        """The largest level that held, below every one that broke; 0 where none did."""
        return max((level.users for level in self.levels if not level.broken and level.users < self.broke), default=0)

    @property
    def broke(self) -> int:
        """The smallest level that broke; one more than the most where none did."""
        return min((level.users for level in self.levels if level.broken), default=self.most + 1)

    def _go(self, users: int, now: float) -> None:
        self._users, self._since = users, now

    def _next(self) -> int | None:
        held, broke = self.held, self.broke
        if broke > self.most:
            up = min(self.most, max(held + 1, round(held * self.climb)))
            return up if up > held else None
        between = (held + broke) // 2
        if broke - held > max(1.0, self.fine * held) and between not in (0, held):
            return between
        above = min(self.most, round(broke * self.climb))
        return above if max(level.users for level in self.levels) < (1 - self.fine) * above else None
