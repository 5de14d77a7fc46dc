"""Several turns of one connection, turns that fail, and the end of a connection."""

import asyncio
from contextlib import suppress

import websockets

from chroma_models.errors import StageUnavailable
from chroma_models.types import Admitted
from tests.deployments.ingress.realtime.conftest import Dial
from tests.deployments.ingress.scripted import FINGERPRINT, chunk, items, reply


async def test_one_of_four_turns_is_cancelled_and_the_others_say_all(dial: Dial) -> None:
    client = await dial()
    client.service.speaker.script = reply(frames=40, pause_s=0.05)
    for number in range(4):
        await client.send(
            "response.create",
            response={
                "conversation": "none",
                "metadata": {"number": str(number)},
                "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
            },
        )
    await client.one("response.output_audio.delta", 4)
    created = {e["response"]["metadata"]["number"]: e["response"]["id"] for e in client.all("response.created")}
    assert len(created) == 4
    await client.send("response.cancel", response_id=created["2"])
    await client.one("response.done", 4)
    done = {e["response"]["metadata"]["number"]: e["response"] for e in client.all("response.done")}
    assert {n: r["status"] for n, r in done.items()} == {
        "0": "completed", "1": "completed", "2": "cancelled", "3": "completed"
    }  # fmt: skip
    for number, response_id in created.items():
        heard = client.audio(response_id)
        assert (len(heard) == 40 * 1920 * 2) == (number != "2")
    kinds = [(e["type"], e.get("response_id")) for e in client.told]
    at = next(
        i for i, e in enumerate(client.told) if e["type"] == "response.done" and e["response"]["id"] == created["2"]
    )
    assert ("response.output_audio.delta", created["2"]) not in kinds[at:]
    await client.service.speaker.all_closed()


async def test_a_turn_that_fails_is_a_response_that_failed_and_the_session_lives_on(dial: Dial) -> None:
    client = await dial()
    broken = items(Admitted(FINGERPRINT), chunk(0, 2, 10), StageUnavailable("A stage was lost.", 1.0))
    client.service.speaker.by_word["break"] = broken
    failed = await client.answered("break please")
    assert failed["status"] == "failed"
    assert failed["status_details"]["type"] == "failed"
    assert failed["status_details"]["error"]["code"] == "stage_unavailable"
    assert not client.all("error")
    assert (await client.answered("hello"))["status"] == "completed"


async def test_a_draining_replica_ends_the_turn_and_closes_with_1012(dial: Dial) -> None:
    client = await dial(drain_wait_s=20.0)
    client.service.speaker.script = reply(frames=20, pause_s=0.05)
    await client.say("hello")
    await client.send("response.create")
    await client.one("response.output_audio.delta")
    draining = asyncio.create_task(client.service.server.drain())
    with suppress(websockets.ConnectionClosed):
        await client.socket.wait_closed()
    assert client.socket.close_code == 1012
    assert client.all("response.done")[0]["response"]["status"] == "completed"
    await draining


async def test_a_session_ends_when_it_said_it_would(dial: Dial) -> None:
    client = await dial(session={"max_session_s": 1.0})
    assert "expires_at" in client.all("session.created")[0]["session"]
    await client.socket.wait_closed()
    assert client.socket.close_code == 1001
    assert client.socket.close_reason == "session_expired"
