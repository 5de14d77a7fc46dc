"""One run: callers, samples, and what the series say."""

import asyncio
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.spread import spread
from tests.chaos.replicas import shared_memory
from tests.deployments.graph import Graph
from tests.soak.callers import Load
from tests.soak.samples import Samples, limit
from tests.soak.verdict import trend

MOST_SAMPLES = 600  # of a run
OF_OTHERS = ("PostgreSQL", "plasma", "ray")  # in shared memory


@dataclass(frozen=True)
class Plan:
    duration_s: float
    warm_up_s: float
    callers: int
    reply_s: float
    seed: int


def start(plan: Plan, checkpoint: Path, reasoner: str) -> Graph:
    """On the Ray that is there, with room for everybody."""
    slots = {"slots": plan.callers + 4}
    return Graph.start(
        "soak",
        checkpoint,
        models={
            "reasoner": {"engine": reasoner, "max_model_len": 2048, **slots},
            "backbone": slots,
            "codec": slots,
        },
        serving={"limits": {"max_load": 100.0, "admit_timeout_s": 5.0, "first_audio_timeout_s": 30.0}},
    )


async def soak(graph: Graph, plan: Plan) -> dict[str, Any]:
    """On a graph that is there. What grows, fails or is left over is told as faults."""
    await graph.idle()
    names, samples = shared_memory(), Samples()
    load = Load(graph, samples, plan.reply_s)
    rng = random.Random(plan.seed)
    people = [asyncio.create_task(load.call(number, rng.getrandbits(31))) for number in range(plan.callers)]
    every_s = max(1.0, plan.duration_s / MOST_SAMPLES)
    loop = asyncio.get_running_loop()
    began, count = loop.time(), 0
    while loop.time() - began < plan.duration_s:
        await samples.take(graph)
        count += 1
        await asyncio.sleep(began + count * every_s - loop.time())
    load.over.set()
    await asyncio.gather(*people)
    faults = [*load.faults, *await _left(graph, names)]
    trends = {
        name: found
        for name, (times, values) in sorted(samples.series.items())
        if (found := trend(times, values, plan.warm_up_s, limit(name))) is not None
    }
    faults += [
        f"{name} grew by {one.growth:.1f} ({one.surely:.1f} beyond noise), {one.allowed:.1f} allowed"
        for name, one in trends.items()
        if not one.flat
    ]
    late = [v for t, v in zip(*samples.series["callers: first audio s"], strict=True) if t >= plan.warm_up_s]
    return {
        "plan": asdict(plan),
        "turns": dict(sorted(load.turns.items())),
        "first_audio_s": spread(late, 3),
        "flat": all(one.flat for one in trends.values()),
        "faults": faults,
        "trends": {name: {**asdict(one), "flat": one.flat} for name, one in trends.items()},
        "series": {name: {"t_s": times, "values": values} for name, (times, values) in samples.series.items()},
    }


async def _left(graph: Graph, names: set[str]) -> list[str]:
    """Once nobody calls any more."""
    try:
        await graph.idle()
    except AssertionError as error:
        return [str(error)]
    left = {name for name in shared_memory() - names if not name.startswith(OF_OTHERS)}
    return [f"shared memory is left: {sorted(left)[:5]}"] if left else []
