"""Parts of a cluster die under listeners: they hear what they would have heard, or are told what is missing."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.replicas import kill, whole
from tests.chaos.run import Plan, disturb, start
from tests.deployments.graph import Graph
from tests.deployments.ingress.realtime.client import Client

pytestmark = pytest.mark.serve

LONGEST_S = 60.0  # until a turn without a stage has ended: far above what the limits add up to, far below for ever


async def test_what_dies_under_a_turn_is_not_heard(cluster: None, tiny: Path, tmp_path: Path) -> None:
    plan = Plan(3, streams=3, kills=1, pauses=0, replicas=2, reply_s=3.0, reasoner="torch", placement="split")
    database = f"sqlite:///{tmp_path / 'voices.db'}"
    graph = start(plan, tiny, database)
    try:
        told = await disturb(graph, plan, database)
    finally:
        graph.stop()
    assert told["faults"] == []
    assert told["turns"] >= plan.streams
    assert told["blows"] == {f"{stage} kill": 1 for stage in ("Backbone", "Codec", "Decoder", "Reasoner")}


async def test_without_a_stage_a_turn_ends_and_the_session_lives_on(
    deployed: Callable[..., Graph], tiny: Path, tmp_path: Path
) -> None:
    """The weights are taken away, so that nothing that dies comes back until they are there again."""
    weights, away = tmp_path / "tiny", tmp_path / "away"
    shutil.copytree(tiny, weights)
    graph = deployed(
        "last",
        weights,
        models={"reasoner": {"engine": "torch"}, "placement": "fused"},
        serving={"limits": {"admit_timeout_s": 1.0}},
    )
    client = await Client.to(graph.url.replace("http", "ws"))
    await client.send("session.update", session={"type": "realtime", "chroma": {"max_reply_s": 30.0}})
    try:
        for stage in ("Backbone", "Codec"):
            (process,) = await whole(graph, stage, 1)
            heard, done = len(client.all("response.output_audio.delta")), len(client.all("response.done"))
            await client.say("Go on.")
            await client.send("response.create")
            await client.one("response.output_audio.delta", heard + 1)
            weights.rename(away)
            kill(process)
            died = time.monotonic()
            async with asyncio.timeout(LONGEST_S):
                while len(client.all("response.done")) == done:
                    await asyncio.sleep(0.05)
            response = client.all("response.done")[-1]["response"]
            assert response["status"] == "failed"
            assert response["status_details"]["error"]["code"] == "stage_unavailable"
            print(f"{stage}: told after {time.monotonic() - died:.1f} s")
            away.rename(weights)
            await whole(graph, stage, 1)
            await client.send("session.update", session={"type": "realtime", "chroma": {"max_reply_s": 1.0}})
            assert (await client.answered())["status"] == "incomplete"  # as long as it may be
            await client.send("session.update", session={"type": "realtime", "chroma": {"max_reply_s": 30.0}})
        await graph.idle()
    finally:
        await client.close()
