"""A machine that behaves as the model says is predicted from little load to the caller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.plan.calibrate import Observed, calibrate
from loadtest.plan.queueing import wait_s
from loadtest.slo import Slo

SLO = Slo.read("first_audio_p95=500ms,underrun=100%")


class Machine:
    """Two cores; idle work, and work for each caller, in two processes."""

    def __init__(self, idle: float, each: float, piece_s: float, alone_s: float) -> None:
        self.idle, self.each, self.piece_s, self.alone_s = idle, each, piece_s, alone_s

    def busy(self, callers: int) -> float:
        return (self.idle + self.each * callers) / 2

    def first_audio_s(self, callers: int) -> float:
        return self.alone_s + wait_s(self.busy(callers), self.piece_s, 0.95)

    def observed(self, callers: int) -> Observed:
        busy = self.busy(callers)
        mean_s = self.alone_s / 2 + busy / (1 - busy) * self.piece_s
        cores = {"Backbone": self.idle + 0.7 * self.each * callers, "Codec": 0.3 * self.each * callers}
        return Observed(callers, cores, mean_s, self.first_audio_s(callers))

    def capacity(self) -> int:
        return max(n for n in range(400) if self.busy(n) <= 0.95 and self.first_audio_s(n) <= 0.5)


@given(st.floats(0, 0.2), st.floats(0.02, 0.08), st.floats(0.01, 0.06), st.floats(0.02, 0.2))
def test_capacity_is_predicted_from_three_light_loads(idle: float, each: float, piece_s: float, alone_s: float) -> None:
    machine = Machine(idle, each, piece_s, alone_s)
    calibration = calibrate([machine.observed(n) for n in (4, 6, 9)], 2.0, 4.0, 0.95)
    limit = calibration.limits(SLO)[0]
    assert limit.streams == pytest.approx(machine.capacity(), abs=1.5)
    assert limit.stage == "Backbone"
    assert calibration.pool.piece_s(1) == pytest.approx(piece_s, rel=1e-3)
    assert calibration.alone_s == pytest.approx(alone_s, abs=1e-3)


def test_more_cores_hold_more() -> None:
    machine = Machine(0.1, 0.05, 0.03, 0.1)
    observed = [machine.observed(n) for n in (4, 6, 9)]
    one, two = (calibrate(observed, cores, 4.0, 0.95).limits(SLO)[0].streams for cores in (1.5, 2.0))
    assert one < two


def test_one_load_is_no_line() -> None:
    with pytest.raises(ValueError, match="two loads"):
        calibrate([Machine(0, 0.1, 0.03, 0.1).observed(4)], 2.0, 4.0, 0.95)
