"""A machine that behaves as the model says is predicted from little load, and far too much, to the caller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.plan.calibrate import Observed, calibrate
from loadtest.plan.queueing import wait_s
from loadtest.slo import Slo

SLO = Slo.read("first_audio_p95=500ms,underrun=100%")
LIGHT = (4, 6, 9)
DUTY = 0.4  # seconds of speech that a caller hears in a second, where nobody waits


class Machine:
    """Two cores, busy with two processes: so much for each caller, and less once steps are shared.

    work_s: first audio of a turn alone, which is shared by the cores where others are there; tail_s: the same at p95.
    """

    def __init__(self, idle: float, each: float, filled: float, work_s: float, tail_s: float) -> None:
        self.idle, self.each, self.filled, self.work_s, self.tail_s = idle, each, filled, work_s, tail_s
        self.piece_s = work_s / 4

    def busy(self, callers: float) -> float:
        light = min(callers, LIGHT[-1])
        busy = (self.idle + self.each * light) / 2
        return busy + (callers - light) * (1 - busy) / (self.filled - LIGHT[-1])

    def first_audio_s(self, callers: float) -> float:
        return self.tail_s + wait_s(self.busy(callers), self.piece_s, 0.95)

    def observed(self, callers: int, share: float = 0.7) -> Observed:
        """share: of the work, by the Backbone."""
        busy = min(1.0, self.busy(callers))
        mean_s = self.work_s + busy / (1 - busy) * self.piece_s if busy < 1 else 9.0
        cores = {"Backbone": 2 * share * busy, "Codec": 2 * (1 - share) * busy}
        return Observed(callers, cores, DUTY * min(callers, self.filled), mean_s, self.first_audio_s(callers))

    def light(self) -> list[Observed]:
        return [self.observed(n) for n in LIGHT]

    def capacity(self) -> int:
        return max(n for n in range(400) if self.busy(n) <= 0.95 and self.first_audio_s(n) <= 0.5)


@given(st.floats(0, 0.2), st.floats(0.02, 0.08), st.floats(20, 120), st.floats(0.02, 0.15), st.floats(0.02, 0.2))
def test_capacity_is_predicted_from_light_loads_and_one_that_is_too_much(
    idle: float, each: float, filled: float, work_s: float, tail_s: float
) -> None:
    machine = Machine(idle, each, filled, work_s, tail_s)
    calibration = calibrate(machine.light(), machine.observed(200), 2.0, 4.0, 0.95)
    limit = calibration.limits(SLO)[0]
    assert limit.streams == pytest.approx(machine.capacity(), abs=1.5)
    assert limit.stage == "Backbone"
    assert calibration.filled == pytest.approx(filled)
    assert calibration.pool.piece_s(1) == pytest.approx(machine.piece_s, rel=1e-3)
    assert calibration.alone_s == pytest.approx(tail_s, abs=1e-3)


def test_more_cores_hold_more() -> None:
    machine = Machine(0.1, 0.05, 40, 0.1, 0.1)
    one, two = (
        calibrate(machine.light(), machine.observed(80), cores, 4.0, 0.95).limits(SLO)[0].streams
        for cores in (1.5, 2.0)
    )
    assert one < two


def test_one_load_is_no_line_and_a_light_load_is_not_too_much() -> None:
    machine = Machine(0.1, 0.05, 40, 0.1, 0.1)
    with pytest.raises(ValueError, match="two light loads"):
        calibrate([machine.observed(4)], machine.observed(80), 2.0, 4.0, 0.95)
    with pytest.raises(ValueError, match="no more than that of 9 callers"):
        calibrate(machine.light(), machine.observed(8), 2.0, 4.0, 0.95)
