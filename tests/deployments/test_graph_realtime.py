"""A live conversation through the whole graph on a real cluster."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from loadtest.microphone import recording
from loadtest.realtime_bench import Plan, converse
from tests.deployments.graph import QUESTION, Graph
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.session.speech import pieces, silence, spoken

pytestmark = pytest.mark.serve

STEPS = 8  # of int16: in company the same codes are decoded within 1e-4
PIECE_S = 0.02


@asynccontextmanager
async def connected(graph: Graph, **chroma: Any) -> AsyncIterator[Client]:
    client = await Client.to(graph.url.replace("http", "ws"))
    await client.send("session.update", session={"type": "realtime", "chroma": {"seed": 7, **chroma}})
    await client.one("session.updated")
    yield client
    await client.close()


async def microphone(client: Client, *sounds: bytes) -> None:
    """At the pace of speech."""
    due = time.monotonic()
    for sound in sounds:
        for piece in pieces(sound, PIECE_S):
            await client.append(piece)
            due += PIECE_S
            await asyncio.sleep(due - time.monotonic())


async def freed(graph: Graph) -> None:
    """Returns when no stage holds a slot."""
    ends_at = time.monotonic() + 20
    while any(state.get("slots_held", 0) for state in (await graph.states()).values()):
        assert time.monotonic() < ends_at, "a slot is still held"


async def test_two_spoken_turns_with_an_interruption(graph: Graph) -> None:
    async with connected(graph, max_reply_s=50.0) as client:
        await microphone(client, silence(0.3), spoken(), silence(0.7))
        await client.one("response.output_audio.delta", 2)
        await microphone(client, spoken(), silence(0.7))
        done = (await client.one("response.done"))["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        begun = client.told.index(client.all("input_audio_buffer.speech_started")[1])
        late = [e for e in client.told[begun:] if e.get("response_id") == done["id"] and "delta" in e["type"]]
        assert late == []
        second = (await client.one("response.created", 2))["response"]["id"]
        deltas = len(client.all("response.output_audio.delta"))
        await client.one("response.output_audio.delta", deltas + 2)
        await client.send("response.cancel")
        await freed(graph)
        assert (await client.one("response.done", 2))["response"]["id"] == second
        assert not client.all("error")
    await graph.idle()


async def test_a_cancelled_turn_leaves_its_siblings_of_one_connection_alone(graph: Graph) -> None:
    async with connected(graph, max_reply_s=2.0) as client:
        text = {"type": "input_text", "text": "Tell me about the sea."}
        beside = {"conversation": "none", "input": [{"type": "message", "role": "user", "content": [text]}]}
        await client.send("response.create", response=beside)
        whole = client.audio((await client.one("response.done"))["response"]["id"])
        assert len(whole) == 2 * 24_000 * 2
        for round_ in range(3):
            at = len(client.told)
            for _ in range(4):
                await client.send("response.create", response=beside)
            heard = len(client.all("response.output_audio.delta"))
            first = (await client.one("response.output_audio.delta", heard + 1))["response_id"]
            await client.send("response.cancel", response_id=first)
            await client.one("response.done", 1 + 4 * (round_ + 1))
            ended = [event["response"] for event in client.told[at:] if event["type"] == "response.done"]
            done = {response["id"]: response["status"] for response in ended}
            assert done.pop(first) == "cancelled"
            assert list(done.values()) == ["incomplete"] * 3  # two seconds, as asked
            for response_id in done:
                pcm = np.frombuffer(client.audio(response_id), "<i2").astype(int)
                assert len(pcm) == len(whole) // 2
                assert np.abs(pcm - np.frombuffer(whole, "<i2")).max() <= STEPS
    await graph.idle()


async def test_a_client_that_goes_takes_its_turns_with_it(graph: Graph) -> None:
    async with connected(graph, max_reply_s=50.0) as client:
        await client.say("Go on and on.")
        await client.send("response.create")
        await client.one("response.output_audio.delta")
        client.socket.transport.abort()
    await freed(graph)
    await graph.idle()


async def test_the_benchmark_holds_its_conversations(graph: Graph) -> None:
    plan = Plan(sessions=3, turns=1, reply_s=1.5, think_s=0.3, join_s=1.0, piece_s=0.08, seed=0)
    told = await converse(graph.url.replace("http", "ws"), plan, recording(QUESTION))
    assert told["faults"] == []
    assert told["failed"] == 0
    assert (told["heard_out"], told["turns"]) == (3, 9)
    assert told["interrupted_ms"]["n"] == told["cancelled_ms"]["n"] == 3
    assert told["first_audio_s"]["n"] == told["response_latency_s"]["n"] == 9
    assert told["first_audio_s"]["min"] > 0
    assert told["response_latency_s"]["min"] > 0.5  # the VAD's silence is in it
    await graph.idle()
