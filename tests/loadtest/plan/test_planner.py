"""A plan moves the way its wishes move, names what binds, adds up, and says where its figures come from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.plan.curve import Curve, Point
from loadtest.plan.measured import RESULTS, BadMeasurements, Crowd, Measured, read
from loadtest.plan.page import page
from loadtest.plan.planner import BadPlan, Plan, PoolPlan, Workload, plan, promised_of
from loadtest.plan.queueing import erlang_b
from loadtest.plan.roofline import GPUS
from loadtest.plan.told import told
from loadtest.slo import Slo

H200 = GPUS["h200"]
SLO = Slo.read("first_audio_p95=300ms,underrun=0.1%")
CALLERS = Workload(5000, 4, 4, 10)
NOTHING = Measured()
few = settings(max_examples=25)


def planned(workload: Workload = CALLERS, slo: Slo = SLO, measured: Measured = NOTHING, **more: Any) -> Plan:
    return plan(slo, workload, H200, measured, **more)


@few
@given(st.integers(1, 50_000), st.floats(1, 3))
def test_more_callers_never_need_fewer_gpus(sessions: int, times: float) -> None:
    more = replace(CALLERS, sessions=round(sessions * times))
    assert planned(replace(CALLERS, sessions=sessions)).gpus <= planned(more).gpus


@few
@given(st.floats(0.5, 10.9), st.floats(0.5, 10.9))
def test_longer_replies_never_need_fewer_gpus(one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert planned(replace(CALLERS, reply_s=short)).gpus <= planned(replace(CALLERS, reply_s=long)).gpus


@few
@given(st.integers(50, 2000), st.integers(50, 2000), st.floats(0.01, 5), st.floats(0.01, 5))
def test_a_stricter_promise_never_needs_fewer_gpus(one: int, other: int, first: float, second: float) -> None:
    def slo(ms: float, share: float) -> Slo:
        return Slo.read(f"first_audio_p95={ms}ms,underrun={share:.4f}%")

    (tight, loose), (little, much) = sorted((one, other)), sorted((first, second))
    strict, lax = planned(slo=slo(tight, little)), planned(slo=slo(loose, much))
    assert strict.gpus >= lax.gpus
    assert strict.first_audio_s <= tight / 1000 + 1e-9


@pytest.mark.parametrize("layout", ["single", "split"])
def test_the_memory_of_a_gpu_is_given_out_exactly(layout: Any) -> None:
    for each in planned(layout=layout).pools:
        parts = each.pool.memory(each.streams)
        assert sum(parts.values()) == pytest.approx(H200.memory_bytes)
        assert parts["free"] >= 0


@few
@given(st.sampled_from(["Backbone", "Decoder", "Codec", "Reasoner"]))
def test_the_stage_that_is_slowed_down_binds(stage: str) -> None:
    slow = Measured(curves={stage: Curve((Point(1, 20.0, "measured: s.json"), Point(64, 70.0, "measured: s.json")))})
    made = planned(measured=slow)
    pool, limit = made.binding
    assert limit.stage == stage
    assert made.gpus > planned().gpus
    assert pool.streams < 64


def test_memory_binds_where_it_is_short() -> None:
    made = plan(SLO, CALLERS, replace(H200, memory_bytes=20e9), NOTHING, "single")
    pool, limit = made.binding
    assert limit.what == "memory"
    assert pool.pool.memory(pool.streams)["free"] >= 0 > pool.pool.memory(pool.streams + 1)["free"]


def test_an_interpreter_binds_where_messages_are_dear() -> None:
    _, limit = planned(measured=Measured(host_us=(20_000.0, "measured: hops.json")), layout="single").binding
    assert (limit.what, limit.streams) == ("its interpreter", 35)


def test_a_lost_node_is_survived_with_the_spare_gpus_and_not_without() -> None:
    made = planned(layout="single")
    (pool,) = made.pools
    assert pool.refused <= 1e-3 < pool.refused_with_a_node_lost
    left = made.gpus_with_a_node_to_lose - min(8, pool.replicas)
    assert erlang_b(made.load / left, pool.streams) <= 1e-3
    alone = planned(layout="single", gpus_per_node=1)
    assert alone.gpus_with_a_node_to_lose == alone.gpus + 1


def test_what_is_left_after_a_lost_node_serves_as_many_as_it_can() -> None:
    made = planned(measured=read([RESULTS], "h200"), layout="split")
    for pool in made.pools:
        left, share = pool.replicas - 8, pool.refused_with_a_node_lost

        def refused(expected: float, pool: PoolPlan = pool, left: int = left) -> float:
            arrivals_hz = CALLERS.turns_hz * (1 - expected) / left  # those refused are no work
            slots = replace(pool.pool, arrivals_hz=arrivals_hz).limits(promised_of(SLO, made.alone_s, 2))[0].streams
            return erlang_b(made.load / left, slots) if slots else 1.0

        assert refused(share) <= share < 1
        assert refused(share - 0.01) > share - 0.01


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(BadPlan, match="cannot be kept"):
        planned(slo=Slo.read("first_audio_p95=1ms"))
    with pytest.raises(BadPlan, match="of a minute"):
        Workload(10, 6, 4, 10)
    with pytest.raises(BadPlan, match="above 0"):
        Workload(0, 4, 4, 10)
    slow = Measured(curves={"Codec": Curve((Point(1, 100.0, "x"), Point(2, 100.0, "x")))})
    with pytest.raises(BadPlan, match="Codec"):
        planned(measured=slow)


def engine(gpu: str, *batches: tuple[int, float], size: str = "full", command: tuple[str, ...] = ()) -> dict[str, Any]:
    """A result as loadtest.engine_bench writes it."""
    keys = ("backbone_ms", "decoder_ms", "codec_ms", "reasoner_ms")
    rows = [{"batch": batch, **dict.fromkeys(keys, ms), "frame_ms": 2 * ms} for batch, ms in batches]
    machine = {"gpu": gpu, "date": "2026-01-02"}
    return {"command": ["python", *command], "machine": machine, "results": {"size": size, "batches": rows}}


def test_only_measurements_of_this_gpu_and_size_are_read(tmp_path: Path) -> None:
    files = {
        "h200": engine("NVIDIA H200", (1, 1.0), (256, 2.0)),
        "other": engine("NVIDIA H100", (1, 0.1), (256, 0.2)),
        "tiny": engine("NVIDIA H200", (1, 0.1), size="tiny"),
        "calls": engine("NVIDIA H200", (1, 0.1), command=("--no-graphs",)),
    }
    files["kernels"] = {"machine": {"gpu": "NVIDIA H200"}, "results": [{"batch": 1}]}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = read([tmp_path], "h200")
    assert set(found.curves) == {"Backbone", "Decoder", "Codec", "Reasoner"}
    assert all(curve.points[0].ms == 1.0 for curve in found.curves.values())
    assert found.files == ["h200.json"]


def test_a_tail_is_not_read_from_a_handful_of_turns(tmp_path: Path) -> None:
    def alone(turns: int) -> Plan:
        seconds = {"p50": 0.06, "p95": 0.2, "p99": 0.2, "n": turns}
        entry = {"streams": 1, "first_audio_s": seconds}
        machine = {"gpu": "NVIDIA H200", "date": "2026-01-02"}
        result = {"benchmark": "pipeline", "machine": machine, "checkpoint": "full", "question_s": 4.0}
        (tmp_path / "pipeline.json").write_text(json.dumps(result | {"by_streams": [entry]}))
        return planned(measured=read([tmp_path], "h200"))

    few_turns, many = alone(5), alone(100)
    assert few_turns.alone_s == pytest.approx(0.06 + 4e-3)
    assert "too few for p95" in few_turns.alone_source
    assert many.alone_s == pytest.approx(0.2 + 4e-3)
    assert many.alone_source == "measured: pipeline.json"


def test_a_measured_crowd_is_told_beside_what_the_model_says_of_it() -> None:
    crowd = Crowd(16, {"p50": 0.5, "p95": 1.3, "p99": 1.3, "n": 16}, "measured: crowd.json")
    lines = [line for line in told(planned(measured=Measured(crowds=[crowd]))) if line.startswith("checked")]
    assert len(lines) == 1
    assert "1300 ms" in lines[0]
    assert told(planned())[-2].startswith("a node lost")


def test_what_is_no_measurement_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"hello": 1}')
    with pytest.raises(BadMeasurements, match=r"x\.json"):
        read([tmp_path / "x.json"], "h200")
    with pytest.raises(BadMeasurements, match="absent"):
        read([tmp_path / "absent.json"], "h200")


def test_every_figure_says_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(engine("NVIDIA H200", (1, 1.0), (512, 3.0))))
    lines = "\n".join(told(planned(measured=read([tmp_path / "mine.json"], "h200")), 2.5))
    assert lines.count("measured: mine.json") == 4
    assert "roofline" in lines
    guessed = "\n".join(told(planned()))
    assert "measured: mine" not in guessed
    assert "an hour" not in guessed


def test_the_results_of_this_repository_can_be_planned_with() -> None:
    made = planned(measured=read([RESULTS], "h200"))
    assert made.gpus > 0
    assert "measured: graph-cpu.json" in "\n".join(told(made))


def test_the_page_has_a_plot_for_each_of_its_curves() -> None:
    html = page(planned(layout="split"), 3.0)
    assert html.count("<svg") == 6
    assert "binds" in html
