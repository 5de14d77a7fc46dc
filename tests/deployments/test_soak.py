"""What grows is told from what is noisy; and a short soak looks at everything there is."""

import random
from pathlib import Path

import pytest

from tests.deployments.graph import Graph
from tests.soak.run import Plan, soak
from tests.soak.told import plot
from tests.soak.verdict import Limit, trend

TIMES = [3.0 * i for i in range(600)]  # half an hour
WARM_UP_S = 360.0
LIMIT = Limit(0.05, 8.0)


def series(growth: float = 0.0, noise: float = 0.0, warm_up: float = 0.0, peaks: float = 0.0) -> list[float]:
    """Around 500; growth and noise in the same unit."""
    rng = random.Random(0)
    return [
        500
        + growth * t / TIMES[-1]
        + rng.gauss(0, noise)
        + (warm_up * t / WARM_UP_S if t < WARM_UP_S else warm_up)
        + (peaks if rng.random() < 0.02 else 0)
        for t in TIMES
    ]


@pytest.mark.parametrize(
    "calm",
    [series(), series(noise=30), series(warm_up=400), series(peaks=5000), series(growth=-300), series(growth=20)],
)
def test_noise_peaks_warm_ups_and_falls_are_flat(calm: list[float]) -> None:
    found = trend(TIMES, calm, WARM_UP_S, LIMIT)
    assert found is not None
    assert found.flat


@pytest.mark.parametrize(
    "leak",
    [series(growth=60), series(growth=60, noise=20), series(growth=200, noise=60), series(growth=60, peaks=5000)],
)
def test_a_leak_is_seen_through_noise(leak: list[float]) -> None:
    found = trend(TIMES, leak, WARM_UP_S, LIMIT)
    assert found is not None
    assert not found.flat
    assert found.growth == pytest.approx(found.per_day * (TIMES[-1] - WARM_UP_S) / 86_400, rel=1e-6)


def test_a_slow_leak_needs_a_long_run() -> None:
    def leaking(hours: float) -> bool:
        times = [hours * 6.0 * i for i in range(600)]
        found = trend(times, [500 + 2.0 * t / 3600 for t in times], 0.0, LIMIT)
        assert found is not None
        return not found.flat

    assert not leaking(0.5)
    assert leaking(24.0)


@pytest.mark.parametrize(("steps", "flat"), [(1, True), (8, False)])
def test_one_step_is_kept_memory_and_a_staircase_is_a_leak(steps: int, flat: bool) -> None:
    climbed = [500.0 + 60.0 * round(steps * (t - WARM_UP_S) / (TIMES[-1] - WARM_UP_S)) for t in TIMES]
    found = trend(TIMES, climbed if steps > 1 else [560.0 if t > 900 else 500.0 for t in TIMES], WARM_UP_S, LIMIT)
    assert found is not None
    assert found.flat == flat


def test_too_little_to_say_anything_is_said_to_be_so() -> None:
    assert trend(TIMES[:5], [1.0] * 5, 0.0, LIMIT) is None
    assert trend(TIMES, series(), TIMES[-1] + 1, LIMIT) is None


@pytest.mark.serve
async def test_a_short_soak_looks_at_everything(graph: Graph, tmp_path: Path) -> None:
    told = await soak(graph, Plan(duration_s=12.0, warm_up_s=2.0, callers=6, reply_s=1.0, seed=1))
    assert sum(told["turns"].values()) > 0
    assert not [fault for fault in told["faults"] if "still held" in fault or "is left" in fault]
    for stage in graph.stages:
        assert max(told["series"][f"{stage}: USS MiB"]["values"]) > 10
        assert f"{stage}: descriptors" in told["series"]
    assert max(told["series"]["Codec: slots held"]["values"]) > 0
    plot(told, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 1000
