"""One run: a cluster, an audience, a schedule of blows, and what is left afterwards."""

import asyncio
import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from deployments.ingress.store.database import Database
from deployments.ingress.store.tenant_tables import UsageRow
from loadtest.spread import spread
from tests.chaos.listeners import Audience, listen, oracle, questions
from tests.chaos.replicas import descriptors, kill, processes, shared_memory, stopped, whole
from tests.deployments.graph import Graph

BREATH_S = 3.0  # between two blows at least
PAUSE_S = 6.0  # of a stopped replica; more than stall_timeout_s
OF_OTHERS = ("PostgreSQL", "plasma", "ray")  # in shared memory
SLACK = 8  # descriptors and tasks that a replica may have more than before the run


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

    def blows(self, stages: list[str]) -> list[tuple[str, str]]:
        """Every stage equally often, in an order of the seed's."""
        blows = [(stage, "kill") for stage in stages for _ in range(self.kills)]
        blows += [(stage, "pause") for stage in stages for _ in range(self.pauses)]
        random.Random(self.seed).shuffle(blows)
        return blows


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
    """On the Ray that is there. A stage that has lost a replica still has room for everybody."""
    slots = {"slots": plan.streams + 4}
    stages = ["codec", "backbone", "reasoner", *(["decoder"] if plan.placement == "split" else [])]
    return Graph.start(
        f"chaos-{plan.seed}",
        checkpoint,
        models={
            "placement": plan.placement,
            "reasoner": {"engine": plan.reasoner, "max_model_len": 2048, **slots},
            "backbone": slots,
            "codec": slots,
            "ingress": {"database_url": database},
        },
        scale={stage: {"replicas": plan.replicas, "max_ongoing_requests": 4 * plan.streams + 64} for stage in stages},
        serving={"limits": {"max_load": 100.0, "admit_timeout_s": 5.0, "first_audio_timeout_s": 30.0}},
    )


async def disturb(graph: Graph, plan: Plan, database: str) -> dict[str, Any]:
    """The run itself, on a graph that is there; what went wrong is told as faults."""
    stages = [stage for stage in graph.stages if stage != "Ingress"]
    rng, audience, over = random.Random(plan.seed), Audience(), asyncio.Event()
    before_memory = shared_memory()
    ingress = await whole(graph, "Ingress", 1)
    blows, times = dict[str, int](), [0.0, 0.0]
    began = time.monotonic()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=120.0, limits=limits, trust_env=False) as http:
        known = await oracle(http, graph, questions(plan.reply_s))
        quiet = await graph.idle()
        held = {process: descriptors(process) for process in ingress}
        people = [
            asyncio.create_task(listen(http, graph, number, known, audience, over)) for number in range(plan.streams)
        ]
        await asyncio.sleep(plan.reply_s)
        for stage, blow in plan.blows(stages):
            await audience.ended_that_began_before(times[-2])  # a turn outlives two blows; no third one falls into it
            victim = rng.choice(await whole(graph, stage, plan.replicas))
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
    faults += await _left(graph, stages, quiet, held, before_memory)
    faults += await _unwritten(database, audience.turns + len(known))
    return {
        "seed": plan.seed,
        "streams": plan.streams,
        "reasoner": plan.reasoner,
        "placement": plan.placement,
        "took_s": round(time.monotonic() - began, 1),
        "turns": audience.turns,
        "failed": len(audience.errors),
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


async def _left(
    graph: Graph, stages: list[str], quiet: dict[str, Any], held: dict[int, int], memory: set[str]
) -> list[str]:
    """What the turns should have taken with them and did not."""
    faults = []
    try:
        states = await graph.idle()
    except AssertionError as error:
        return [str(error)]
    if states["Ingress"]["tasks"] > quiet["Ingress"]["tasks"] + SLACK:
        faults.append(f"the ingress has {states['Ingress']['tasks']} tasks, {quiet['Ingress']['tasks']} before")
    for process, count in held.items():
        if os.path.exists(f"/proc/{process}") and descriptors(process) > count + SLACK + 4 * len(stages):
            faults.append(f"the ingress holds {descriptors(process)} descriptors, {count} before")
    replicas = [process for stage in stages for process in await processes(graph, stage)]
    if len(set(replicas)) != len(replicas):
        faults.append("two replicas share a process")
    if extra := {name for name in shared_memory() - memory if not name.startswith(OF_OTHERS)}:
        faults.append(f"shared memory is left: {sorted(extra)[:5]}")
    return faults


async def _unwritten(database: str, turns: int) -> list[str]:
    """Usage has a closed row for every turn."""
    store = Database(database, 10.0)
    await store.open()
    try:
        for _ in range(100):
            async with store.session() as session:
                rows = (await session.scalars(select(UsageRow.outcome))).all()
            if len(rows) >= turns and "running" not in rows:
                break
            await asyncio.sleep(0.1)
    finally:
        await store.close()
    faults = [] if len(rows) == turns else [f"usage has {len(rows)} rows for {turns} turns"]
    return faults + ([f"{rows.count('running')} rows of usage are open"] if "running" in rows else [])
