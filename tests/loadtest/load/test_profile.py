"""Arrivals follow their shapes, and the stairs end at the edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.profile import PROFILES, Stairs, users_at

SHAPES = [profile for profile in PROFILES if profile != "stairs"]


@pytest.mark.parametrize("profile", SHAPES)
@given(peak=st.integers(1, 5000), seconds=st.floats(1, 10_000), share=st.floats(0, 0.999))
def test_there_is_always_somebody_never_too_many_and_an_end(
    profile: str, peak: int, seconds: float, share: float
) -> None:
    users = users_at(profile, share * seconds, peak, seconds)  # type: ignore[arg-type]
    assert users is not None
    assert 1 <= users <= peak
    assert users_at(profile, seconds, peak, seconds) is None  # type: ignore[arg-type]


def test_a_ramp_rises_and_a_burst_comes_and_goes() -> None:
    ramp = [users_at("ramp", second, 100, 60.0) for second in range(60)]
    assert ramp == sorted(ramp, key=int)  # type: ignore[arg-type]
    assert ramp[30] == 50
    burst = [users_at("burst", second, 100, 180.0) for second in range(180)]
    assert burst.count(100) == 3 * 15
    assert burst.count(25) == 3 * 45


class Server:
    """Holds so many callers. Time passes a second at a time."""

    def __init__(self, capacity: int, first: int, most: int) -> None:
        self.capacity, self.users, self.now = capacity, 0, 0.0
        self.stairs = Stairs(first, most, 4.0, 6.0, self.judge)

    def judge(self, begin: float, end: float) -> list[str]:
        assert end - begin >= 6.0
        return ["too late"] if self.users > self.capacity else []

    def run(self) -> int:
        for _ in range(10_000):
            wanted = self.stairs.tick(self.now)
            if wanted is None:
                return self.stairs.held
            self.users = wanted
            self.now += 1.0
        raise AssertionError("the stairs have no end")


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 300))
def test_the_stairs_find_what_a_server_holds(capacity: int, first: int, more: int) -> None:
    most = first + more
    server = Server(capacity, first, most)
    held = server.run()
    assert held <= capacity
    if capacity >= most:
        assert held == most
        assert server.stairs.broke == most + 1
    else:
        assert held <= capacity < server.stairs.broke
        assert server.stairs.broke - held <= max(1, 0.1 * held)
        assert max(level.users for level in server.stairs.levels) >= 0.9 * min(most, round(1.5 * server.stairs.broke))
    assert all(level.users <= most for level in server.stairs.levels)
    assert len(server.stairs.levels) < 30


def test_a_level_counts_from_when_its_callers_are_there() -> None:
    stairs = Stairs(4, 4, 2.0, 5.0, lambda begin, end: [])
    assert stairs.tick(0.0) == 4
    stairs.moved(3.0)
    assert stairs.tick(9.9) == 4
    assert stairs.tick(10.0) is None
    assert (stairs.levels[0].begin, stairs.levels[0].end) == (5.0, 10.0)
