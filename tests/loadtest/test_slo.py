"""A promise is read as it is written, and broken by exactly what it forbids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.summary import summary
from loadtest.slo import QUANTILES, SHARES, BadPromise, Promise, Slo
from tests.loadtest.load.turns import heard

PROMISES = st.one_of(
    st.builds(
        Promise,
        st.sampled_from(QUANTILES),
        st.sampled_from([0.5, 0.95, 0.99]),
        st.integers(1, 10_000).map(lambda ms: ms / 1000),
    ),
    st.builds(Promise, st.sampled_from(SHARES), st.none(), st.integers(0, 1000).map(lambda n: n / 1000)),
)


@given(st.lists(PROMISES, min_size=1, max_size=4))
def test_what_is_written_is_read(promises: list[Promise]) -> None:
    slo = Slo(tuple(promises))
    again = Slo.read(str(slo))
    assert [(p.name, p.share) for p in again.promises] == [(p.name, p.share) for p in promises]
    assert [p.most for p in again.promises] == pytest.approx([p.most for p in promises])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a promise"),
        ("first_audio=300ms", "no promise"),
        ("first_audio_p90=300ms", "no promise"),
        ("speed_p95=300ms", "no promise"),
        ("underrun_p95=1%", "no promise"),
        ("first_audio_p95=300", "ms or s"),
        ("first_audio_p95=3%", "ms or s"),
        ("underrun=300ms", "in %"),
        ("underrun=101%", "no more than 100%"),
        ("first_audio_p95=0ms", "above 0"),
        ("rtf_p95=300ms", "a plain number"),
    ],
)
def test_what_cannot_be_kept_track_of_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadPromise, match=words):
        Slo.read(text)


@given(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=50), st.floats(0.01, 2.0))
def test_it_is_broken_when_more_than_a_twentieth_of_the_turns_are_late(seconds: list[float], most: float) -> None:
    shown = summary([heard(first_audio_s=each) for each in seconds])
    late = sum(round(each, 4) > most for each in seconds)
    broken = Slo((Promise("first_audio", 0.95, most),)).broken(shown)
    assert bool(broken) == (late > 0.05 * len(seconds))


def test_nothing_heard_is_a_broken_promise() -> None:
    assert Slo.read("first_audio_p95=300ms").broken(summary([])) == ["first_audio_p95=300ms: nothing was measured"]
