"""One run: a cluster, an audience, a schedule of blows, and what is left afterwards."""

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loadtest.quota_bench import tenants_of
from loadtest.spread import spread
from tests.chaos.left import Before, left, unwritten
from tests.chaos.listeners import (
    CROWD_REPLY_S,
    SLOW_REPLY_S,
    Asked,
    Audience,
    crowd,
    listen,
    listen_slowly,
    oracle,
    questions,
)
from tests.chaos.replicas import controller, kill, stopped, whole
from tests.deployments.graph import Graph

BREATH_S = 3.0  # between two blows at least
PAUSE_S = 6.0  # of a stopped replica; more than stall_timeout_s
SLOW, CROWD = Asked(100, 0.9, SLOW_REPLY_S), Asked(101, 0.0, CROWD_REPLY_S)


@dataclass(frozen=True)
class Plan:
    seed: int
    streams: int
    kills: int
    pauses: int
    replicas: int
    reply_s: float
    reasoner: str
    placement: str
    controllers: int = 0  # kills of Serve's controller
    slow: int = 0  # listeners who stop reading for a while
    crowds: int = 0  # more askers at once than all slots

    def blows(self, stages: list[str]) -> list[tuple[str, str]]:
        """Every stage equally often, in an order of the seed's."""
        blows = [(stage, "kill") for stage in stages for _ in range(self.kills)]
        blows += [(stage, "pause") for stage in stages for _ in range(self.pauses)]
        blows += [("Controller", "kill")] * self.controllers
        blows += [("Listener", "slow")] * self.slow + [("Listener", "crowd")] * self.crowds
        random.Random(self.seed).shuffle(blows)
        return blows

    @property
    def slots(self) -> int:
        """Of a replica. A stage that has lost one still has room for everybody."""
        return self.streams + self.slow + 4


async def run(plan: Plan, checkpoint: Path) -> dict[str, Any]:
    """Starts and stops its own cluster."""
    from deployments.cluster import local_ray

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, local_ray():
        graph = start(plan, checkpoint, f"sqlite:///{folder}/voices.db")
        try:
            return await disturb(graph, plan, f"sqlite:///{folder}/voices.db")
        finally:
            graph.stop()


def start(plan: Plan, checkpoint: Path, database: str) -> Graph:
    """On the Ray that is there."""
    slots = {"slots": plan.slots}
    stages = ["codec", "backbone", "reasoner", *(["decoder"] if plan.placement == "split" else [])]
    return Graph.start(
        f"chaos-{plan.seed}",
        checkpoint,
        models={
            "placement": plan.placement,
            "reasoner": {"engine": plan.reasoner, "max_model_len": 2048, **slots},
            "backbone": slots,
            "codec": slots,
            "ingress": {
                "database_url": database,
                "auth": True,
                "pause_above_s": 2.0,
                "resume_below_s": 1.0,
            },
        },
        scale={stage: {"replicas": plan.replicas, "max_ongoing_requests": 4 * plan.streams + 64} for stage in stages},
        serving={"limits": {"max_load": 100.0, "admit_timeout_s": 5.0, "first_audio_timeout_s": 30.0}},
    )


async def disturb(graph: Graph, plan: Plan, database: str) -> dict[str, Any]:
    """The run itself, on a graph that is there; what went wrong is told as faults."""
    stages = [stage for stage in graph.stages if stage != "Ingress"]
    rng, audience, over = random.Random(plan.seed), Audience(), asyncio.Event()
    (tenant,) = await asyncio.to_thread(tenants_of, database, [8 * plan.slots])
    blows, times = dict[str, int](), [0.0, 0.0]
    began = time.monotonic()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    words = {"authorization": f"Bearer {tenant.key}"}
    async with httpx.AsyncClient(timeout=120.0, limits=limits, trust_env=False, headers=words) as http:
        more = [*([SLOW] if plan.slow else []), *([CROWD] if plan.crowds else [])]
        known = await oracle(http, graph, questions(plan.reply_s) + more)
        asked = {one: codes for one, codes in known.items() if one not in more}
        before = await Before.now(graph)
        people = [
            asyncio.create_task(listen(http, graph, number, asked, audience, over)) for number in range(plan.streams)
        ]
        await asyncio.sleep(plan.reply_s)
        for stage, blow in plan.blows(stages):
            if stage == "Listener":
                print(f"  {time.monotonic() - began:6.1f} s: a {blow} one more", flush=True)
                blows[f"{stage} {blow}"] = blows.get(f"{stage} {blow}", 0) + 1
                work = (
                    listen_slowly(http, graph, known, audience, SLOW)
                    if blow == "slow"
                    else crowd(http, graph, known, audience, CROWD, 2 * plan.slots)
                )
                people.append(asyncio.create_task(work))
                continue
            await audience.ended_that_began_before(times[-2])  # a turn outlives two blows; no third one falls into it
            victim = (
                await controller() if stage == "Controller" else rng.choice(await whole(graph, stage, plan.replicas))
            )
            print(
                f"  {time.monotonic() - began:6.1f} s: {blow} of a {stage}, {audience.turns} turns so far", flush=True
            )
            blows[f"{stage} {blow}"] = blows.get(f"{stage} {blow}", 0) + 1
            times.append(time.monotonic())
            if blow == "kill":
                kill(victim)
            else:
                with stopped(victim):
                    await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(BREATH_S + rng.random() * 2)
        await asyncio.sleep(plan.reply_s)
        over.set()
        await asyncio.gather(*people)
    for stage in stages:
        await whole(graph, stage, plan.replicas)
    faults = [*audience.errors, *(f"other codes: {told}" for told in audience.different)]
    faults += await left(graph, before, plan.replicas)
    turns = audience.turns + len(known)
    faults += await unwritten(database, range(turns, turns + 1))
    return {
        "seed": plan.seed,
        "streams": plan.streams,
        "reasoner": plan.reasoner,
        "placement": plan.placement,
        "took_s": round(time.monotonic() - began, 1),
        "turns": audience.turns,
        "failed": len(audience.errors),
        "refused": audience.refused,
        "other_codes": len(audience.different),
        "blows": dict(sorted(blows.items())),
        "resumed": sum(losses > 0 for losses in audience.losses),
        "most_losses": max(audience.losses, default=0),
        "underruns": audience.underruns,
        "longest_pause_s": round(audience.longest_pause_s, 2),
        "most_silence_s": round(audience.most_silence_s, 2),
        "first_audio_s": spread(audience.first_audio_s, 3),
        "faults": faults,
    }
