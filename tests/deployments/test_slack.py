"""The autoscaler's policy: what it may do whatever replicas tell, and that Serve carries it as the settings say."""

import asyncio
import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import InvalidRequest, Overloaded
from chroma_models.types import Admitted, AudioChunk, EncodedVoice, Frame, Sampling, Turn
from deployments.app import autoscaling_config
from deployments.autoscaling.day import GOALS, Context, Day, Delays, Run, by_requests
from deployments.autoscaling.feelings import SETTLES_S, Feelings
from deployments.autoscaling.slack import AT_EASE_S, FALLS_S, HISTORY, Felt, Goals, Sample, SlackPolicy, pressed, wanted
from deployments.settings import Autoscaling, Settings
from tests.deployments.graph import on_ray

COLD = Goals(**GOALS, cold_start_s=60.0)
SLOTS = 64

felt = st.builds(
    Felt,
    slots=st.just(float(SLOTS)),
    slots_held=st.integers(0, SLOTS).map(float),
    load=st.floats(0, 1.5),
    lead_s=st.floats(-1, AT_EASE_S),
    admit_wait_s=st.floats(0, 3),
    refused=st.integers(0, 3).map(float),
)
many = st.lists(felt, min_size=1, max_size=12)


def now(replicas: list[Felt]) -> list[Sample]:
    """A history of this moment alone."""
    return [Sample(1000.0, sum(one.use for one in replicas))]


@given(many, st.integers(1, 20))
def test_never_fewer_than_hold_what_runs(replicas: list[Felt], target: int) -> None:
    held = sum(one.slots_held for one in replicas)
    assert wanted(replicas, len(replicas), target, COLD, now(replicas)) >= min(target, math.ceil(held / SLOTS))


@given(many, st.integers(1, 20), st.data())
def test_who_feels_worse_never_has_fewer_replicas(replicas: list[Felt], target: int, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(replicas) - 1))
    one = replicas[i]
    worse = dataclasses.replace(
        one,
        slots_held=data.draw(st.floats(one.slots_held, SLOTS)),
        load=data.draw(st.floats(one.load, 2.0)),
        lead_s=data.draw(st.floats(-2, one.lead_s)),
        admit_wait_s=data.draw(st.floats(one.admit_wait_s, 4)),
        refused=data.draw(st.floats(one.refused, 4)),
    )
    others = [*replicas[:i], worse, *replicas[i + 1 :]]
    before = wanted(replicas, len(replicas), target, COLD, now(replicas))
    assert wanted(others, len(others), target, COLD, now(others)) >= before


@given(st.integers(2, 20), st.floats(0.0, 1.0))
def test_what_it_chose_it_keeps(running: int, use: float) -> None:
    """The same work on as many replicas as were chosen asks neither for more nor for fewer."""
    work = use * running

    def choose(replicas: int, target: int) -> int:
        each = [Felt(SLOTS, SLOTS * work / replicas) for _ in range(replicas)]
        return wanted(each, replicas, target, COLD, now(each))

    first = choose(running, running)
    second = choose(first, first)
    assert choose(second, second) == second


def test_pressure_asks_once_while_replicas_start() -> None:
    refusing = [Felt(SLOTS, 0.4 * SLOTS, refused=1.0)] * 4
    grown = wanted(refusing, 4, 4, COLD, now(refusing))
    assert grown == 5
    assert wanted(refusing, 4, grown, COLD, now(refusing)) == grown


def test_a_thin_lead_counts_where_there_is_work_alone() -> None:
    assert pressed([Felt(SLOTS, 0.6 * SLOTS, lead_s=0.2)], COLD)
    assert not pressed([Felt(SLOTS, 0.1 * SLOTS, lead_s=0.2)], COLD)
    assert pressed([Felt(SLOTS, 0.1 * SLOTS, refused=1)], COLD)


@pytest.mark.parametrize(("cold_start_s", "replicas"), [(0.0, 4), (60.0, 5), (300.0, 8)])
def test_a_rise_is_met_before_it_has_come(cold_start_s: float, replicas: int) -> None:
    rising = [Sample(float(t), 1.5 + t / 100) for t in range(0, 101, 10)]  # a replica's work in 100 s
    each = [Felt(SLOTS, 0.625 * SLOTS)] * 4
    goals = dataclasses.replace(COLD, cold_start_s=cold_start_s)
    assert wanted(each, 4, 4, goals, rising) == replicas


def test_a_fall_is_believed_once_it_has_lasted() -> None:
    idle = [Felt(SLOTS, 0.1 * SLOTS)] * 4
    was_busy = [Sample(0.0, 2.2), Sample(FALLS_S - 1, 0.4)]
    assert wanted(idle, 4, 4, COLD, was_busy) == 4
    assert wanted(idle, 4, 4, COLD, [*was_busy, Sample(FALLS_S + 1, 0.4)]) == 1


def context(told: dict[str, float], replicas: int, at: float, state: dict[str, Any]) -> Context:
    metrics = {name: dict.fromkeys(range(replicas), value) for name, value in told.items()}
    return Context(replicas, replicas, at, metrics, state, 2, 10, 0.0)


def test_it_stays_within_its_bounds_and_its_memory() -> None:
    policy, state = SlackPolicy(**GOALS, cold_start_s=60.0), {}
    for second in range(2000):
        count, state = policy(context({"slots": 64, "slots_held": 64, "running": 3}, 8, float(second), state))
    assert count == 10
    assert len(state[HISTORY]) <= FALLS_S / 5 + 1
    assert policy(context({"slots": 64, "slots_held": 0}, 8, 9999.0, {}))[0] == 2
    assert policy(context({}, 8, 0.0, {}))[0] == 8  # nobody has told anything yet


def test_serve_takes_it_as_the_settings_say() -> None:
    from ray.serve._private.autoscaling_state import _apply_autoscaling_config
    from ray.serve.config import AutoscalingConfig

    told = Autoscaling(min_replicas=2, max_replicas=9, cold_start_s=180, target_use=0.6)
    config = AutoscalingConfig(**autoscaling_config(told))
    assert (config.min_replicas, config.max_replicas, config.upscale_delay_s) == (2, 9, 0.0)
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)  # as Serve unpickles and makes it
    busy = context({"slots": 64, "slots_held": 60}, 4, 100.0, {})
    busy.config = config  # type: ignore[attr-defined]
    busy.total_num_requests = 0.0
    count, state = _apply_autoscaling_config(policy)(busy)  # type: ignore[arg-type]
    assert count == math.ceil(4 * 60 / 64 / 0.6)
    assert HISTORY in state
    alone = AutoscalingConfig(**autoscaling_config(Autoscaling(by="requests", target_ongoing_requests=5)))
    assert alone.policy.is_default_policy_function()
    assert alone.target_ongoing_requests == 5


def test_settings_that_would_swing_are_refused() -> None:
    for wrong, words in (
        ({"target_use": 0.5, "slack_use": 0.5}, "slack_use 0.5 is not below target_use 0.5"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas 3 is above max_replicas 2"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            Settings.load(None, scale={"codec": {"autoscaling": wrong}})


def turn(pace: Any) -> Turn:
    return Turn("t", "a", (), EncodedVoice("", b"", ""), Sampling(0), pace=pace)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_what_listeners_feel_is_told_once() -> None:
    clock = Clock()
    feelings = Feelings(8, lambda: 3, busy_s=lambda: clock.now / 4, clock=clock)

    async def stream() -> Any:
        clock.now += 0.7
        yield Admitted("")
        for i in range(4):
            clock.now += 1.0
            yield AudioChunk((Frame(i, b"", None),), b"")
        raise Overloaded("full", 1.0)

    passing, told = feelings.turn(turn("realtime"), stream()), []
    with pytest.raises(Overloaded):  # noqa: PT012
        async for _ in passing:
            told.append(feelings.told())
    assert [one["admit_wait_s"] for one in told] == [0.7, 0, 0, 0, 0]
    assert [one["lead_s"] for one in told[:3]] == [AT_EASE_S] * 3  # it has spoken for less than it takes to settle
    assert told[4]["lead_s"] == pytest.approx(4 * 0.08 - SETTLES_S)
    assert told[4]["load"] == pytest.approx(0.25)
    after = feelings.told()
    assert (after["refused"], after["lead_s"], after["slots"], after["slots_held"]) == (1, AT_EASE_S, 8, 3)
    assert feelings.told()["refused"] == 0


async def test_work_at_full_speed_is_not_felt() -> None:
    clock = Clock()
    feelings = Feelings(8, lambda: 0, clock=clock)

    async def stream() -> Any:
        clock.now += 5.0
        yield Admitted("")
        clock.now += 5.0
        yield [Frame(0, b"", None)]
        clock.now += 5.0
        yield [Frame(1, b"", None)]

    async for _ in feelings.turn(turn("fast"), stream()):
        told = feelings.told()
        assert (told["admit_wait_s"], told["lead_s"]) == (0.0, AT_EASE_S)


def test_a_morning_is_the_same_again_and_loses_less_than_counting_requests() -> None:
    day, until = dataclasses.replace(Day(), peak=300.0, max_replicas=8, slots=64, realtime=40), 11 * 3600

    def slack() -> dict[str, Any]:
        return Run(day, SlackPolicy(**GOALS, cold_start_s=180.0)).go(until)

    told, alone = slack(), Run(day, by_requests(0.7 * 64)).go(until)
    assert told == slack()
    assert told["refused_share"] < 0.01 < alone["refused_share"]
    assert 4 < told["most_replicas"] <= 8
    assert len(told["series"]) == until / 300


def test_the_delays_are_serves() -> None:
    from types import SimpleNamespace

    from ray.serve.autoscaling_policy import _apply_delay_logic

    config: Any = SimpleNamespace(upscale_delay_s=20.0, downscale_delay_s=60.0, downscale_to_zero_delay_s=None)
    ours, state, target, theirs = Delays(20.0, 60.0), {}, 4, 4
    wishes = [4, 6, 6, 6, 6, 6, 3, 3, 9, 3, *[3] * 14, 5, 4, 5, 5, 5, 5]
    for tick, wish in enumerate(wishes):
        target = ours.decide(wish, target, 5.0 * tick)
        theirs, state = _apply_delay_logic(wish, theirs, config, state, _now=5.0 * tick)
        assert target == theirs, tick


@pytest.mark.serve
async def test_serve_grows_a_stage_that_refuses_though_few_requests_run(cluster: None) -> None:
    """One call holds one slot of eight, so a count of requests or slots would let it be."""
    from ray import serve

    from tests.deployments.growing import Small

    told = Autoscaling(min_replicas=1, max_replicas=2, look_back_s=10.5)
    options: dict[str, Any] = {"max_ongoing_requests": 16, "ray_actor_options": {"num_cpus": 0}}
    stage = serve.deployment(Small, name="Small", autoscaling_config=autoscaling_config(told), **options)
    serve.start(proxy_location="Disabled")
    try:
        await asyncio.to_thread(serve.run, stage.bind(), name="growing", route_prefix=None)

        async def until_grown() -> list[bool]:
            handle = serve.get_deployment_handle("Small", "growing")
            holding = asyncio.ensure_future(handle.hold.remote(90.0))
            while not await handle.held.remote():
                await asyncio.sleep(0.05)
            answers = []
            while serve.status().applications["growing"].deployments["Small"].replica_states.get("RUNNING", 0) < 2:
                answers.append(await handle.hold.remote(0.1))
                await asyncio.sleep(0.5)
            holding.cancel()
            return answers

        async with asyncio.timeout(90.0):
            answers = await on_ray(until_grown())
        assert answers[0] is False
    finally:
        serve.delete("growing")
