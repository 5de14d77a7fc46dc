"""Summaries add up, survive the way from a worker to the master, and are void when the generator was late."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.records import Ledger, Pulse
from loadtest.load.run import slots_held
from loadtest.load.summary import by, fairness, jain, lag, speech, summary, within
from tests.loadtest.load.turns import heard, refused

SECONDS = st.floats(0.01, 5.0)
TURNS = st.lists(
    st.one_of(
        st.builds(heard, first_audio_s=SECONDS, latency_s=SECONDS, underruns=st.integers(0, 3), slow=st.booleans(),
                  tenant=st.sampled_from("ab"), door=st.sampled_from(["realtime", "grpc", "http"])),
        st.builds(refused, tenant=st.sampled_from("ab")),
    ),
    max_size=40,
)  # fmt: skip


@given(TURNS, st.integers(0, 40))
def test_two_workers_say_the_same_as_one(turns: list, cut: int) -> None:
    """Records cross by Locust's own encoding."""
    workers, master = (Ledger(), Ledger()), Ledger()
    for number, turn in enumerate(turns):
        workers[number < cut].turn(turn)
        workers[number < cut].pulse(f"worker-{number < cut}", Pulse(100.0 + number, 3, 1, 100, 2, 0.06))
    for worker in workers:
        master.add(msgpack.unpackb(msgpack.packb(worker.drain())))
        assert worker.drain() == {"turns": [], "pulses": {}}
    assert sorted(master.turns, key=str) == sorted(turns, key=str)
    assert summary(sorted(master.turns, key=str)) == summary(sorted(turns, key=str))
    assert sum(map(len, master.pulses.values())) == len(turns)


@given(TURNS)
def test_parts_add_up_to_the_whole(turns: list) -> None:
    whole = summary(turns)
    for field in ("door", "tenant"):
        parts = by(turns, field).values()
        assert sum(part["turns"] for part in parts) == whole["turns"] == len(turns)
        assert sum(part["underruns"] for part in parts) == whole["underruns"]
        assert sum(part["first_audio_s"].get("n", 0) for part in parts) == whole["first_audio_s"].get("n", 0)
    assert sum(whole["outcomes"].values()) == len(turns)
    assert all(0 <= share <= 1 for share in whole["shares"].values())


def test_a_slow_reader_is_counted_and_not_timed() -> None:
    shown = summary([heard(), heard(slow=True, first_audio_s=60.0, underruns=9)])
    assert (shown["turns"], shown["slow_readers"], shown["first_audio_s"]["max"], shown["underruns"]) == (2, 1, 0.2, 0)


def test_errors_are_told_by_code() -> None:
    failed = heard(outcome="failed", code="stall")
    assert summary([refused(), refused(), failed, heard()])["errors"] == {"failed: stall": 1, "refused: overloaded": 2}


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20))
def test_jains_index_is_one_for_equals_and_never_below_an_equal_part(shares: list[float]) -> None:
    index = jain(shares)
    assert index is not None
    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9
    assert jain([shares[0]] * len(shares)) == pytest.approx(1)
    assert jain([shares[0], *[0.0] * 3]) == pytest.approx(1 / 4)


def test_a_tenant_that_is_refused_makes_it_unfair() -> None:
    both = [heard(tenant="a"), heard(tenant="b")]
    assert fairness(both) == {"answered": pytest.approx(1), "first_audio": pytest.approx(1)}
    assert fairness([*both, *[refused(tenant="b")] * 9])["answered"] < 0.7


def test_a_late_generator_voids_the_run_also_when_the_others_are_on_time() -> None:
    well = [Pulse(float(n), 1, 1, 100, 0, 0.002) for n in range(50)]
    ill = [Pulse(float(n), 1, 1, 100, 3, 0.2) for n in range(2)]
    assert not lag({"one": well, "two": well})["void"]
    told = lag({"one": well, "two": ill})
    assert told["void"]
    assert told["late_share"] < 0.01 < told["late_share_of_the_worst"]
    assert told["worst_ms"] == 200
    assert lag({})["void"]  # nobody looked


def test_turns_of_a_span_are_those_asked_in_it() -> None:
    turns = [heard(at=float(at)) for at in range(10)]
    assert [turn.at for turn in within(turns, 3, 6)] == [3, 4, 5]


def test_slots_are_read_from_the_metrics_of_every_replica() -> None:
    page = 'ray_chroma_slots_held{application="chroma",stage="Codec",x="y"} 2.0\nray_other{stage="Codec"} 7.0\n'
    assert slots_held([page, page.replace("Codec", "Backbone") + page]) == {"Codec": 4.0, "Backbone": 2.0}


def test_speech_is_counted_when_it_is_heard_and_not_when_it_was_asked_for() -> None:
    turn = heard(at=100.0, latency_s=1.0, ended_at=105.0, audio_s=4.0)
    assert speech([turn], 100.0, 101.0) == 0.0
    assert speech([turn], 101.0, 105.0) == pytest.approx(1.0)
    assert speech([turn] * 3, 103.0, 107.0) == pytest.approx(1.5)
    assert speech([turn], 105.0, 110.0) == 0.0
    assert speech([refused(at=100.0, ended_at=100.1)], 99.0, 101.0) == 0.0
    halting = heard(at=100.0, latency_s=1.0, ended_at=109.0, audio_s=4.0)
    assert speech([halting], 101.0, 109.0) == pytest.approx(0.5)
