"""The formulas are those of the books, and move the way a queue moves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.plan.curve import Curve, Point
from loadtest.plan.queueing import erlang_b, fewest, late_share, piece_of, wait_s

BUSY = st.floats(0.01, 0.99)
PIECE = st.floats(0.001, 0.2)


def test_erlangs_loss_formula_gives_the_tables_values() -> None:
    def plainly(load: float, slots: int) -> float:
        terms = [load**n / math.factorial(n) for n in range(slots + 1)]
        return terms[-1] / sum(terms)

    for load, slots in ((1.0, 1), (5.0, 8), (30.0, 40), (80.0, 80)):
        assert erlang_b(load, slots) == pytest.approx(plainly(load, slots))
    assert erlang_b(1.0, 1) == 0.5
    assert erlang_b(0.0, 3) == 0.0


@given(st.floats(0.1, 3000), st.integers(1, 600), st.floats(1e-4, 0.2))
def test_replicas_are_as_few_as_the_promise_allows(load: float, slots: int, refused: float) -> None:
    replicas = fewest(lambda count: erlang_b(load / count, slots) <= refused)
    assert erlang_b(load / replicas, slots) <= refused
    assert replicas == 1 or erlang_b(load / (replicas - 1), slots) > refused


@given(BUSY, BUSY, PIECE, st.sampled_from([0.5, 0.95, 0.99]))
def test_waiting_grows_with_how_busy_it_is_and_with_the_share_that_is_promised(
    one: float, other: float, piece_s: float, share: float
) -> None:
    low, high = sorted((one, other))
    assert wait_s(low, piece_s, share) <= wait_s(high, piece_s, share)
    assert wait_s(low, piece_s, share) <= wait_s(low, 2 * piece_s, share)
    assert wait_s(low, piece_s, 0.5) <= wait_s(low, piece_s, 0.99)
    assert late_share(low, piece_s, 0.64) <= late_share(high, piece_s, 0.64)
    assert wait_s(1.0, piece_s, share) == math.inf


@given(st.floats(0.3, 0.98), PIECE)
def test_who_waits_longer_than_the_quantile_is_the_rest(busy: float, piece_s: float) -> None:
    waited = wait_s(busy, piece_s, 0.95)
    assert late_share(busy, piece_s, waited) == pytest.approx(0.05, rel=1e-6)
    assert piece_of(busy, waited, 0.95) == pytest.approx(piece_s)


@given(st.dictionaries(st.integers(1, 512), st.floats(0.1, 50), min_size=2, max_size=6), st.floats(1, 2000))
def test_a_curve_goes_through_its_points_and_never_falls(figures: dict[int, float], streams: float) -> None:
    curve = Curve.of([Point(n, ms, "measured: a.json") for n, ms in figures.items()])
    smallest = min(figures)
    assert curve.ms(smallest) == pytest.approx(figures[smallest])
    assert all(curve.ms(n) >= min(figures.values()) - 1e-9 for n in figures)
    assert curve.ms(streams) <= curve.ms(streams + 1) + 1e-9
    assert ("extended" in curve.source(streams)) == (streams > max(figures))


def test_of_two_figures_the_better_one_counts() -> None:
    curve = Curve.of([Point(8, 2.0, "measured: slow.json"), Point(8, 1.0, "measured: fast.json"), Point(1, 0.5, "x")])
    assert curve.ms(8) == 1.0
    assert curve.source(8) == "measured: fast.json"
