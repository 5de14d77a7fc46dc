"""`make load` says what was found, what the planner had said before, and when neither means anything."""

from typing import Any

import pytest

from loadtest.capacity import calibrated, compared, told
from loadtest.load.summary import summary
from loadtest.plan.queueing import wait_s
from loadtest.slo import Slo
from tests.loadtest.load.turns import heard

SLO = Slo.read("first_audio_p95=500ms")
ON_TIME = {"void": False, "late_share_of_the_worst": 0.0, "limit_ms": 50.0}
LATE = {"void": True, "late_share_of_the_worst": 0.2, "limit_ms": 50.0}


FILLED = 37.5  # callers who keep both cores busy


def level(users: int, **lag: Any) -> dict[str, Any]:
    """Of a machine whose two cores are half a core busy for nobody, and 0.04 for each caller."""
    busy = min(0.99, (0.5 + 0.04 * users) / 2)
    first_s = 0.1 + wait_s(busy, 0.02, 0.95)
    shown = summary([heard(first_audio_s=first_s)] * 40)
    mean_s = 0.08 + busy / (1 - busy) * 0.02
    told = {"first_audio_mean_s": mean_s, "lag": lag or ON_TIME, "broken": SLO.broken(shown)}
    return {"users": users, "speech": 0.4 * min(users, FILLED), "summary": shown, **told}


def run(*users: int, others: float = 0.0, late: tuple[int, ...] = ()) -> dict[str, Any]:
    levels = [level(n, **(LATE if n in late else {})) for n in users]
    held = max((each["users"] for each in levels if not each["broken"]), default=0)
    broke = min((each["users"] for each in levels if each["broken"]), default=61)
    options = {"reply_s": 4.0}
    result = {
        "slo": str(SLO),
        "users": 60,
        "levels": levels,
        "held": held,
        "broke": broke,
        "void": bool(late),
        "lag": LATE if late else ON_TIME,
    }
    usage = [{"Backbone": min(2.0, 0.5 + 0.04 * n), "others": others} for n in users]
    return {**result, **compared({**result, "options": options}, SLO, usage)}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def test_what_was_measured_stands_beside_what_was_predicted_without_the_levels_at_the_edge() -> None:
    result = run(6, 9, 14, 21, 32, 26, 29, 48)
    assert not result["void"]
    assert result["capacity"]["held"] < result["capacity"]["callers"] < result["capacity"]["broke"]
    assert result["predicted"]["from_levels"] == [6, 9, 14]
    assert result["predicted"]["full_level"] == 48
    assert result["predicted"]["filled"] == pytest.approx(FILLED, abs=0.1)
    assert abs(result["error"]) < 0.1
    lines = told(result)
    assert any(line.startswith("error") and "within" in line for line in lines)
    assert not any("other work" in line or "VOID" in line for line in lines)


def test_where_nothing_broke_there_is_no_capacity_no_prediction_and_no_error() -> None:
    result = run(4, 6, 9)
    assert result["capacity"]["callers"] is None
    assert result.get("error") is None
    assert any("was not too much" in line for line in told(result))


def test_a_level_that_broke_and_got_no_more_done_than_the_light_ones_predicts_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stuck = {**level(40), "cores": {"Backbone": 0.6}, "speech": 1.0}
    light = [{**level(n), "cores": {"Backbone": 0.5 + 0.04 * n}} for n in (4, 6, 9)]
    assert calibrated(light, stuck, SLO, 4.0) is None
    assert "no more than that of 9 callers" in capsys.readouterr().err


def test_a_late_generator_at_the_edge_voids_the_run_and_elsewhere_does_not() -> None:
    assert run(6, 9, 14, 21, 32, 26, 29, 48, late=(48,))["void"] is False
    edge = run(6, 9, 14, 21, 32, 26, 29, 48)["capacity"]["broke"]
    voided = run(6, 9, 14, 21, 32, 26, 29, 48, late=(edge,))
    assert voided["void"]
    assert any("VOID" in line for line in told(voided))


def test_other_work_on_the_machine_is_told() -> None:
    assert any("other work" in line for line in told(run(4, 6, 9, others=0.8)))
