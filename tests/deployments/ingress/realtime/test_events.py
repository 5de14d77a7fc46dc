"""The server events of a turn, and their order."""

import numpy as np

from tests.deployments.ingress.realtime.conftest import Dial
from tests.deployments.ingress.scripted import WORDS, reply, spoken_pcm, tone

QUESTION = (tone(24_000, 24_000) * 32767).astype("<i2").tobytes()


async def test_the_events_of_one_turn_come_in_the_order_of_the_api(dial: Dial) -> None:
    client = await dial()
    client.service.speaker.script = reply(frames=3, group=3)
    await client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    await client.append(QUESTION)
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    await client.one("rate_limits.updated")
    assert client.kinds == [
        "session.created",
        "session.updated",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    response = client.all("response.done")[0]["response"]
    assert response["status"] == "completed"
    heard = np.frombuffer(client.audio(response["id"]), "<i2") / 32768
    assert np.abs(heard - spoken_pcm(3)).max() < 1e-4
    assert response["output"][0]["content"][0]["transcript"] == "".join(WORDS[:2])
