"""Callers are as many of each kind as was asked for, and the same again for the same seed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.behaviour import STAY_S, Behaviour

SHARE = st.floats(0, 1 / 3)
BEHAVIOURS = st.builds(
    Behaviour,
    turns=st.integers(1, 6),
    think_s=st.floats(0.5, 10),
    barge_in=SHARE,
    cancel=SHARE,
    hang_up=SHARE,
    slow=SHARE,
    tenants=st.integers(1, 5),
)


@given(BEHAVIOURS, st.integers(), st.integers(1, 4))
def test_a_script_can_be_followed(behaviour: Behaviour, seed: int, clips: int) -> None:
    script = behaviour.draw(random.Random(seed), clips)
    assert script == behaviour.draw(random.Random(seed), clips)
    assert 1 <= len(script.turns) <= 2 * behaviour.turns - 1
    assert 0 <= script.tenant < behaviour.tenants
    assert all(0 <= turn.clip < clips and turn.think_s >= STAY_S for turn in script.turns)
    assert all(turn.ending != "hang_up" for turn in script.turns[:-1])
    assert script.turns[-1].ending != "barge_in"  # nobody would say the words


def test_shares_and_means_come_out_as_asked() -> None:
    behaviour = Behaviour(turns=3, think_s=2.0, barge_in=0.0, cancel=0.2, hang_up=0.0, slow=0.25, tenants=4)
    rng = random.Random(1)
    scripts = [behaviour.draw(rng, 1) for _ in range(4000)]
    turns = [turn for script in scripts for turn in script.turns]
    assert len(turns) / len(scripts) == pytest.approx(3, rel=0.05)
    assert sum(turn.ending == "cancel" for turn in turns) / len(turns) == pytest.approx(0.2, rel=0.1)
    assert sum(script.slow for script in scripts) / len(scripts) == pytest.approx(0.25, rel=0.1)
    assert sum(turn.think_s for turn in turns) / len(turns) == pytest.approx(2.0, rel=0.05)
    assert sum(script.tenant == 3 for script in scripts) / len(scripts) == pytest.approx(0.25, rel=0.1)


def test_a_conversation_lasts_as_long_as_its_parts() -> None:
    calm = Behaviour(turns=4, think_s=3.0, reply_s=8.0, barge_in=0, cancel=0, hang_up=0)
    assert calm.session_s(2.0) == 4 * (3 + 2 + 8)
    assert Behaviour(turns=4, think_s=3.0, reply_s=8.0, cancel=0.5).session_s(2.0) < calm.session_s(2.0)


def test_more_endings_than_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="smaller"):
        Behaviour(barge_in=0.5, cancel=0.4, hang_up=0.2)
