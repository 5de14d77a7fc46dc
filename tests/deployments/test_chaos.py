"""Parts of a cluster die under listeners: they hear what they would have heard, or are told in time what is missing."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.replicas import kill, whole
from tests.chaos.run import Plan, disturb, start
from tests.deployments.graph import Graph
from tests.deployments.ingress.realtime.client import Client

pytestmark = pytest.mark.serve

LONGEST_S = 60.0  # far above what the limits add up to, which is 8 s: cores may be busy, but nothing waits for ever


async def test_what_dies_under_a_turn_is_not_heard(cluster: None, tiny: Path, tmp_path: Path) -> None:
    plan = Plan(
        3, streams=3, kills=1, pauses=0, replicas=2, reply_s=3.0, reasoner="torch", placement="split", slow=0, crowds=1
    )
    database = f"sqlite:///{tmp_path / 'voices.db'}"
    graph = start(plan, tiny, database)
    try:
        told = await disturb(graph, plan, database)
    finally:
        graph.stop()
    assert told["faults"] == []
    assert told["turns"] >= plan.streams
    kills = {f"{stage} kill": 1 for stage in ("Backbone", "Codec", "Decoder", "Reasoner")}
    assert told["blows"] == {**kills, "Listener crowd": 1}


async def test_without_a_stage_turns_end_in_time_and_the_session_lives_on(
    cluster: None, tiny: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "tiny"
    shutil.copytree(tiny, weights)
    models = {"reasoner": {"engine": "torch"}, "placement": "fused"}
    graph = Graph.start("last", weights, models=models, serving={"limits": {"admit_timeout_s": 0.5}})
    try:
        client = await Client.to(graph.url.replace("http", "ws"))
        for stage in ("Backbone", "Codec"):
            await lose(graph, stage, client, weights)
        await client.close()
        await graph.idle()
    finally:
        graph.stop()


async def lose(graph: Graph, stage: str, client: Client, weights: Path) -> None:
    """The stage's only replica dies under a turn, and none comes in its place while the weights are away."""
    away = weights.with_name("away")
    (process,) = await whole(graph, stage, 1)
    await chroma(client, max_reply_s=30.0)
    speaking = asyncio.create_task(client.answered("Go on."))
    await client.one("response.output_audio.delta", len(client.all("response.output_audio.delta")) + 1)
    weights.rename(away)
    kill(process)
    died = time.monotonic()
    async with httpx.AsyncClient(timeout=LONGEST_S, trust_env=False) as http:
        failed, refused = await asyncio.wait_for(asyncio.gather(speaking, graph.ask(http)), LONGEST_S)
    print(f"{stage}: told after {time.monotonic() - died:.1f} s")
    assert failed["status"] == "failed"
    assert failed["status_details"]["error"]["code"] == "stage_unavailable"
    assert (refused.status, refused.error["code"]) == (503, "stage_unavailable")
    away.rename(weights)
    await whole(graph, stage, 1)
    await chroma(client, max_reply_s=1.0)
    assert (await client.answered())["status"] == "incomplete"  # as long as it may be


async def chroma(client: Client, **fields: Any) -> None:
    await client.send("session.update", session={"type": "realtime", "chroma": fields})
