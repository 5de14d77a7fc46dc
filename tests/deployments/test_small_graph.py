"""A graph with few slots, two Reasoners, and the Decoder inside the Backbone."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.deployments.graph import Graph
from tests.deployments.test_graph import client

pytestmark = pytest.mark.serve


@pytest.fixture(scope="module")
def small(deployed: Callable[..., Graph], tiny: Path) -> Graph:
    return deployed(
        "small",
        tiny,
        models={"reasoner": {"engine": "torch"}, "placement": "fused", "backbone": {"slots": 2}},
        scale={"reasoner": {"replicas": 2}},
        serving={"limits": {"admit_timeout_s": 0.4}},
    )


async def test_fused_and_split_speak_the_same(small: Graph, graph: Graph) -> None:
    async with client() as http:
        for seed, temperature in [(1, 0.0), (2, 0.9)]:
            one = await small.ask(http, seed=seed, temperature=temperature)
            other = await graph.ask(http, seed=seed, temperature=temperature)
            assert np.array_equal(one.codes, other.codes)


async def test_a_full_backbone_refuses_with_a_typed_error_and_a_time(small: Graph) -> None:
    """The refusal comes from two replicas away, before any status line was sent."""
    async with client() as http:
        long = {"chroma": {"max_reply_s": 8.0}}
        speaking = [asyncio.create_task(small.ask(http, **long)) for _ in range(2)]
        await asyncio.sleep(0.5)
        response: httpx.Response = await http.post(f"{small.url}/v1/chat/completions", json=small.body())
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "overloaded"
        assert float(response.headers["retry-after"]) > 0
        for task in speaking:
            assert (await task).status == 200
        await small.idle()


async def test_one_session_stays_on_one_reasoner(small: Graph) -> None:
    async def replica(session: str) -> int:
        return int((await small.state("Reasoner", session))["pid"])

    sessions = {f"session-{i}": {await replica(f"session-{i}") for _ in range(4)} for i in range(16)}
    assert all(len(replicas) == 1 for replicas in sessions.values())
    assert len(set.union(*sessions.values())) == 2
