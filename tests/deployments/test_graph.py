"""The whole graph on a real cluster, through its public door."""

import asyncio
import random

import httpx
import numpy as np
import psutil
import pytest

from tests.deployments.graph import Graph, Heard, exported

pytestmark = pytest.mark.serve

TWO_S = 2 * 24_000 * 2  # bytes of pcm16
GROWTH_BYTES = 24 << 20  # allocators keep some; a leak of 200 turns would be more


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=60.0, limits=httpx.Limits(max_connections=64))


async def test_eight_turns_at_once_all_stream_what_each_would_alone(graph: Graph) -> None:
    async with client() as http:
        seeds = [{"seed": seed, "temperature": 0.8 if seed % 2 else 0.0} for seed in range(8)]
        alone = [await graph.ask(http, **seed) for seed in seeds[:3]]
        together = await asyncio.gather(*(graph.ask(http, **seed) for seed in seeds))
        for heard in together:
            assert heard.status == 200
            assert len(heard.pcm) == TWO_S
            assert heard.pieces >= 3  # it came while it was made
            assert heard.finish == "length"
            assert heard.codes.shape == (25, 8)
        for one, again in zip(alone, together, strict=False):
            assert np.array_equal(one.codes, again.codes)
            assert one.words == again.words
        assert not np.array_equal(together[1].codes, together[3].codes)  # other seeds, other speech
        await graph.idle()


async def test_two_hundred_cancelled_turns_leave_nothing(graph: Graph) -> None:
    """Hung up on at every moment: before the first item, after it, in mid-speech, with the upload half sent."""
    rng = random.Random(7)

    async def one(http: httpx.AsyncClient) -> None:
        moment = rng.choice(["at once", "soon", "speaking"])
        pieces = rng.randint(1, 4)
        task = asyncio.create_task(graph.ask(http, leave=lambda heard: moment == "speaking" and heard.pieces >= pieces))
        if moment != "speaking":
            await asyncio.sleep(rng.uniform(0, 0.02) if moment == "at once" else rng.uniform(0.02, 0.3))
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def storm(turns: int) -> dict[str, dict[str, int]]:
        async with client() as http:
            for _ in range(turns // 10):
                await asyncio.gather(*(one(http) for _ in range(10)))
        return await graph.idle()

    before = await storm(60)
    memory = {stage: psutil.Process(state["pid"]).memory_info().rss for stage, state in before.items()}
    after = await storm(200)
    for stage, state in after.items():
        assert state["tasks"] <= before[stage]["tasks"] + 2, stage  # the health check and the question itself
        assert psutil.Process(state["pid"]).memory_info().rss < memory[stage] + GROWTH_BYTES, stage
    async with client() as http:
        assert len((await graph.ask(http)).pcm) == TWO_S


async def test_a_cancelled_turn_leaves_its_siblings_alone(graph: Graph) -> None:
    async with client() as http:
        whole = await graph.ask(http)

        def hangs_up(heard: Heard) -> bool:
            return heard.pieces >= 1

        for _ in range(3):
            first, *others = await asyncio.gather(graph.ask(http, leave=hangs_up), *(graph.ask(http) for _ in range(3)))
            assert len(first.pcm) < TWO_S
            for other in others:
                assert np.array_equal(other.codes, whole.codes)
        await graph.idle()


async def test_a_refused_turn_harms_no_other(graph: Graph) -> None:
    async with client() as http:
        whole = await graph.ask(http)
        bad = {"audio": {"voice": {"reference": {"data": "AAAA", "format": "wav"}, "transcript": "x"}}}
        good, *refused = await asyncio.gather(graph.ask(http), *(graph.ask(http, **bad) for _ in range(5)))
        assert np.array_equal(good.codes, whole.codes)
        for heard in refused:
            assert heard.status == 400
            assert heard.error["code"] == "invalid_audio"


async def test_stages_export_their_metrics(graph: Graph) -> None:
    async with client() as http:
        await graph.ask(http)
        text = await exported(
            http, "chroma_turns_total", "chroma_slots_held", "chroma_steps_total", "chroma_first_item_seconds"
        )
        for stage in ("codec", "backbone", "reasoner"):
            assert f'stage="{stage}"' in text
