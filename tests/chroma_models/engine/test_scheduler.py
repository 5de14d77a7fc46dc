"""Pace and admission in simulated time: what listeners are promised, over machines fast and slow."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chroma_models.engine.scheduler import BURST_S, FRAME_S, Scheduler
from chroma_models.engine.step_times import StepTimes
from tests.chroma_models.engine.simulator import Arrival, Machine, Simulation

machines = st.builds(
    Machine,
    step_s=st.floats(0.001, 0.03),
    row_s=st.floats(0.0005, 0.004),
    position_s=st.floats(0.00001, 0.0003),
)


def steady(count: int, every_s: float, frames: int, prompt: int = 300) -> list[Arrival]:
    return [Arrival(i * every_s, frames, prompt) for i in range(count)]


@settings(max_examples=40)
@given(machine=machines, data=st.data())
def test_nobody_who_was_admitted_ever_hears_a_gap(machine: Machine, data: st.DataObject) -> None:
    """Random arrivals at up to about twice what the machine can do; refusal instead of collapse."""
    count = data.draw(st.integers(2, 2 * max(2, min(40, machine.limit(0.85)))), label="count")
    arrivals = [
        Arrival(
            data.draw(st.floats(0, 6), label="at"),
            data.draw(st.integers(1, 150), label="frames"),
            data.draw(st.integers(20, 500), label="prompt"),
        )
        for _ in range(count)
    ]
    simulation = Simulation(machine)
    simulation.run(arrivals)
    assert len(simulation.served) + len(simulation.refused) == count
    assert sum(row.underruns for row in simulation.served) == 0
    assert all(0.5 <= retry_s <= 30 for _, retry_s in simulation.refused)


def test_at_twice_what_fits_half_are_refused_and_the_others_notice_nothing() -> None:
    machine = Machine(0.004, 0.001, 0.00002)
    fits = machine.limit(0.85)
    simulation = Simulation(machine)
    frames = 250
    simulation.run(steady(6 * fits, frames * FRAME_S / (2 * fits), frames))  # twice the rate at which replies end
    assert sum(row.underruns for row in simulation.served) == 0
    assert len(simulation.served) >= 0.4 * 6 * fits, "it refuses what it could have served"
    assert len(simulation.refused) >= 0.3 * 6 * fits
    assert max(row.started_at - row.opened_at for row in simulation.served if row.started_at) < 2.0


def test_below_the_limit_nobody_is_refused() -> None:
    machine = Machine(0.004, 0.001, 0.00002)
    few = machine.limit(0.85) - 2
    simulation = Simulation(machine)
    simulation.run(steady(few, 0.05, 400))
    assert not simulation.refused
    assert sum(row.underruns for row in simulation.served) == 0


def test_without_admission_the_same_load_collapses() -> None:
    """The simulator can fail: what the forecast prevents does happen without it."""
    machine = Machine(0.004, 0.001, 0.00002)
    simulation = Simulation(machine, max_load=float("inf"), patience_s=float("inf"))
    simulation.run(steady(2 * machine.limit(1.0), 0.01, 200))
    assert sum(row.underruns for row in simulation.served) > 100


@settings(max_examples=25)
@given(machine=machines, max_lead_s=st.floats(0.5, 6.0))
def test_leads_come_together_and_stay_within_a_burst_of_each_other(machine: Machine, max_lead_s: float) -> None:
    """Rows that began one after another, on machines that have time for them."""
    count = max(2, min(20, machine.limit(0.7)))
    apart_s = 0.2
    simulation = Simulation(machine, max_lead_s=max_lead_s)
    began = count * apart_s
    simulation.watched = (began + 8 * max_lead_s, began + 8 * max_lead_s + 10)
    simulation.run(steady(count, apart_s, int((began + 8 * max_lead_s + 30) / FRAME_S)))
    assert sum(row.underruns for row in simulation.served) == 0
    assert 0 < simulation.spread_s <= BURST_S + 2 * FRAME_S


@given(
    leads=st.lists(st.floats(-0.5, 3.9), min_size=2, max_size=30),
    step_s=st.floats(0.001, 0.1),
    row_s=st.floats(0, 0.01),
)
def test_the_least_lead_always_steps_and_the_rest_only_near_it_or_when_there_is_time(
    leads: list[float], step_s: float, row_s: float
) -> None:
    times = StepTimes()
    for rows in (1, 2, 4, 8) * 3:
        times.stepped(rows, step_s + row_s * rows)
    rows = [Still(lead) for lead in leads]
    plan = Scheduler(times).plan(rows, 0.0, 4.0, 256)
    least = min(leads)
    assert plan.step[0].lead == least
    assert [row.lead for row in plan.step] == sorted(row.lead for row in plan.step)
    left_out = [row.lead for row in rows if row not in plan.step]
    assert not left_out or min(left_out) > least + BURST_S
    if times.step_s(len(rows)) < FRAME_S / 2:
        assert not left_out


@settings(max_examples=25)
@given(machine=machines, fast=st.integers(1, 12), frames=st.integers(20, 300))
def test_fast_work_never_delays_realtime(machine: Machine, fast: int, frames: int) -> None:
    """With whole files beside them, listeners hear their first frame at most one portion later, and no gap."""
    live = [Arrival(1.0 + 0.7 * i, 120) for i in range(max(1, min(6, machine.limit(0.6))))]
    alone = Simulation(machine)
    alone.run(live)
    beside = Simulation(machine)
    beside.run(live + [Arrival(0.0, frames, realtime=False) for _ in range(fast)])
    heard = {row.arrival.at: row for row in beside.served if row.realtime}
    assert len(beside.served) == len(live) + fast
    for row in alone.served:
        other = heard[row.arrival.at]
        assert other.underruns == row.underruns == 0
        portion_s = max(FRAME_S / 2, machine.step_s + machine.row_s) + 256 * machine.position_s
        assert other.started_at is not None
        assert row.started_at is not None
        assert other.started_at - row.started_at <= 2 * portion_s


@settings(max_examples=15)
@given(machine=machines)
def test_rolls_are_not_heard(machine: Machine) -> None:
    """Long replies feed half a window again while others, and new ones, go on."""
    count = max(1, min(12, machine.limit(0.6)))
    simulation = Simulation(machine, positions=600)
    simulation.run(steady(count, 0.3, 700, 100) + [Arrival(20 + 3.0 * i, 100) for i in range(8)])
    assert sum(row.underruns for row in simulation.served) == 0


def test_the_forecast_counts_what_rolls_will_cost() -> None:
    """Feeding windows again takes nearly as long as the steps here; by steps alone twice as many would be let in."""
    machine = Machine(0.004, 0.001, 0.0004)
    simulation = Simulation(machine, positions=600)
    simulation.run(steady(70, 0.15, 900, 100))
    assert sum(row.underruns for row in simulation.served) == 0
    assert 25 <= len(simulation.served) < 0.8 * machine.limit(0.85)


@settings(max_examples=20)
@given(machine=machines, seed=st.integers(0, 1000))
def test_a_machine_is_learned_while_it_serves(machine: Machine, seed: int) -> None:
    """Nothing measured before, arrivals one after another: the forecast is good before the machine is full."""
    count = max(2, 2 * min(30, machine.limit(0.85)))
    simulation = Simulation(machine, known=False)
    simulation.run(steady(count, 1.0, 300 + seed % 200, 50 + seed % 300))
    assert sum(row.underruns for row in simulation.served) == 0


def test_held_rows_wake_together() -> None:
    """Six rows at rest use few, full steps: a burst of frames for all, then sleep."""
    machine = Machine(0.002, 0.0005, 0.00002)
    simulation = Simulation(machine)
    sizes: list[int] = []
    work = simulation._work
    simulation._work = lambda prefill, n, step: (sizes.append(len(step)), work(prefill, n, step))[1]  # type: ignore[method-assign]
    simulation.run(steady(6, 0.05, 500))
    resting = sizes[len(sizes) // 3 : -40]
    assert sum(resting) / len(resting) > 4.5


def test_measured_costs_follow_the_machine_and_shrug_at_a_pause() -> None:
    times = StepTimes()
    for i in range(200):
        rows = 1 + i % 9
        times.stepped(rows, 0.01 + 0.002 * rows)
        times.prefilled(100, 0.02)
    assert abs(times.step_s(20) - 0.05) < 1e-6
    assert abs(times.position_s - 0.0002) < 1e-9
    times.stepped(5, 30.0)
    assert times.step_s(5) < 0.03
    for i in range(300):
        times.stepped(1 + i % 9, 0.05)
    assert abs(times.step_s(4) - 0.05) < 0.002


class Still:
    """A started realtime row with a fixed lead."""

    realtime = started = ready = True
    held = in_flight = False
    prefill_left = 0
    lead_limit_s = 4.0  # woken: not held before the longest lead

    def __init__(self, lead: float) -> None:
        self.lead = lead

    def lead_s(self, now: float) -> float:
        return self.lead
