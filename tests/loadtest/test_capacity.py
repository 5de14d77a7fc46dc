"""`make load` says what was found, what the planner had said before, and when neither means anything."""

from typing import Any

import pytest

from loadtest.capacity import compared, told
from loadtest.load.summary import summary
from loadtest.plan.queueing import wait_s
from loadtest.slo import Slo
from tests.loadtest.load.turns import heard

SLO = Slo.read("first_audio_p95=500ms")
ON_TIME = {"void": False, "late_share_of_the_worst": 0.0, "limit_ms": 50.0}
LATE = {"void": True, "late_share_of_the_worst": 0.2, "limit_ms": 50.0}


def level(users: int, **lag: Any) -> dict[str, Any]:
    """Of a machine whose two cores are half a core busy for nobody, and 0.04 for each caller."""
    busy = (0.5 + 0.04 * users) / 2
    first_s = 0.1 + wait_s(busy, 0.04, 0.95)
    shown = summary([heard(first_audio_s=first_s)] * 40)
    mean_s = 0.05 + busy / (1 - busy) * 0.04
    broken = SLO.broken(shown)
    return {"users": users, "summary": shown, "first_audio_mean_s": mean_s, "lag": lag or ON_TIME, "broken": broken}


def run(*users: int, others: float = 0.0, void: bool = False, late: tuple[int, ...] = ()) -> dict[str, Any]:
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
        "void": void,
        "lag": ON_TIME,
    }
    usage = [{"Backbone": 0.5 + 0.04 * n, "others": others} for n in users]
    return {**result, **compared({**result, "options": options}, SLO, usage)}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def test_what_was_measured_stands_beside_what_was_predicted_from_the_first_levels() -> None:
    result = run(4, 6, 9, 14, 21, 32, 26, 29)
    assert not result["void"]
    assert result["capacity"]["held"] < result["capacity"]["callers"] < result["capacity"]["broke"]
    assert result["predicted"]["from_levels"] == [4, 6, 9]
    assert abs(result["error"]) < 0.1
    lines = told(result)
    assert any(line.startswith("error") and "within" in line for line in lines)
    assert not any("other work" in line or "VOID" in line for line in lines)


def test_where_nothing_broke_there_is_no_capacity_and_no_error() -> None:
    result = run(4, 6, 9)
    assert result["capacity"]["callers"] is None
    assert result["error"] is None
    assert result["predicted"]["callers"] > 9


def test_a_late_generator_at_the_edge_voids_the_run_and_elsewhere_does_not() -> None:
    assert run(4, 6, 9, 14, 21, 32, 26, 29, late=(32,))["void"] is False
    edge = run(4, 6, 9, 14, 21, 32, 26, 29)["capacity"]["broke"]
    voided = run(4, 6, 9, 14, 21, 32, 26, 29, late=(edge,))
    assert voided["void"]
    assert any("VOID" in line for line in told(voided))


def test_other_work_on_the_machine_is_told() -> None:
    assert any("other work" in line for line in told(run(4, 6, 9, others=0.8)))
