"""What a live graph exports is what happened on it."""

import asyncio

import pytest

from tests.deployments import observed
from tests.deployments.graph import Graph
from tests.deployments.observed import Samples
from tests.deployments.test_graph import client

pytestmark = pytest.mark.serve

MOST = 6  # turns at once, at the watched graph's door
OURS = {"stage", "placement", "outcome", "protocol", "code", "fault", "tenant"}
RAYS = {"application", "deployment", "replica", "Component", "NodeAddress", "SessionName", "Version", "WorkerId"}


async def test_turns_steps_and_slots_of_every_stage_are_exported(watched: Graph) -> None:
    async with client() as http:
        await asyncio.gather(*(watched.ask(http) for _ in range(4)))

    def holds(now: Samples) -> None:
        for stage in ("codec", "backbone", "decoder", "reasoner"):
            mine = {"application": watched.name, "placement": "split", "stage": stage}
            assert now.sum("ray_chroma_audio_seconds_total", **mine) >= 8.0  # four replies of two seconds
            assert now.sum("ray_chroma_busy_seconds_total", **mine) > 0
            assert now.sum("ray_chroma_rows_total", **mine) >= now.sum("ray_chroma_steps_total", **mine) > 0
            steps = now.sum("ray_chroma_step_seconds_count", **mine)
            assert steps == now.sum("ray_chroma_steps_total", **mine)
            assert steps == now.sum("ray_chroma_step_rows_count", **mine)
            if stage != "decoder":  # it has neither turns nor slots
                assert now.sum("ray_chroma_turns_total", **mine) >= 5  # and the warm-up
                assert now.sum("ray_chroma_admit_wait_seconds_count", **mine) >= 5
                assert now.sum("ray_chroma_slots", **mine) == 16
        assert "ray_chroma_slots_held" in now.names

    await observed.soon(holds)


async def test_replies_are_exported_as_their_listeners_had_them(watched: Graph) -> None:
    before = await observed.there("ray_chroma_live_replies_total")
    async with client() as http:
        await asyncio.gather(*(watched.ask(http) for _ in range(3)))
        await watched.ask(http, stream=False, stream_options=None)  # nobody listens while it is made
        await watched.ask(http, leave=lambda heard: heard.pieces >= 2)

    def holds(now: Samples) -> None:
        def grown(name: str, **labels: str) -> float:
            mine = {"application": watched.name, "protocol": "chat", **labels}
            return now.sum(f"ray_chroma_{name}", **mine) - before.sum(f"ray_chroma_{name}", **mine)

        assert grown("responses_total") == 5
        assert grown("responses_total", outcome="incomplete") == 4
        assert grown("responses_total", outcome="cancelled") == 1
        assert grown("live_replies_total") == grown("first_audio_seconds_count") == 4
        assert grown("reply_rtf_ratio_count") == 3  # who hung up has no end to measure
        assert grown("frame_gap_seconds_count") >= 3 * 4

    await observed.soon(holds)


async def test_who_is_turned_away_is_counted_once(watched: Graph) -> None:
    of_mine = {"application": watched.name, "protocol": "chat", "code": "overloaded"}
    before = (await observed.there("ray_chroma_refusals_total")).sum("ray_chroma_refusals_total", **of_mine)
    async with client() as http:
        heard = await asyncio.gather(*(watched.ask(http) for _ in range(MOST + 4)))
    refused = sum(one.status == 429 for one in heard)
    assert refused >= 1

    def holds(now: Samples) -> None:
        assert now.sum("ray_chroma_refusals_total", **of_mine) - before == refused

    await observed.soon(holds)


async def test_a_probe_speaks_by_itself(watched: Graph) -> None:
    mine = {"application": watched.name}
    name = "ray_chroma_probes_total"
    before = (await observed.there(name)).sum(name, outcome="ok", **mine)

    def holds(now: Samples) -> None:
        assert now.sum(name, outcome="ok", **mine) >= before + 2
        assert now.sum("ray_chroma_probe_ok", **mine) == 1
        assert 0 < now.sum("ray_chroma_probe_first_audio_seconds", **mine) < 10

    await observed.soon(holds)


async def test_labels_are_few(watched: Graph) -> None:
    """But for what Ray itself adds, and the bounded number of tenants, nothing grows with traffic."""
    samples = await observed.there("ray_chroma_probe_ok", "ray_chroma_turns_total")
    for name in samples.names:
        for labels in samples.labels(name) if name.startswith("ray_chroma_") else ():
            assert {label for label in labels if not label.startswith("otel_")} <= OURS | RAYS | {"le"}, name
