"""Every client event is understood, and every server event that this model can cause comes as the SDK types it."""

import base64
from typing import Any, get_args

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

from deployments.ingress.realtime.shapes import AnyEvent
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.realtime.conftest import Dial
from tests.deployments.ingress.scripted import reply
from tests.deployments.ingress.session.speech import pieces, silence, spoken

CANNOT = ("mcp", "function_call", "transcription", "dtmf")  # no tools, no transcripts of the input, no telephone keys
OTHERS = {
    "conversation.created",  # of the beta; sessions begin with session.created
    "conversation.item.created",  # of the beta; now item.added and item.done
    "output_audio_buffer.started",  # WebRTC: here the client plays by itself
    "output_audio_buffer.stopped",
}


def names(union: Any) -> set[str]:
    return {get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(union)[0])}


def test_the_client_events_are_those_of_the_api() -> None:
    ours = {get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(AnyEvent)}
    assert ours == names(RealtimeClientEvent)
    assert len(ours) == 11


async def test_every_event_of_the_api_that_means_something_here_is_told(dial: Dial) -> None:
    client = await dial()
    await client.send("nonsense")
    detection = {"type": "server_vad", "idle_timeout_ms": 300, "create_response": True}
    await client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    await _hears(client, silence(0.5) + spoken() + silence(1.0))
    await client.one("response.done")
    await _hears(client, silence(4.0))  # the reply is still played for a second of them
    await client.one("input_audio_buffer.timeout_triggered")
    await client.one("response.done", 2)
    await client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    await client.append(silence(0.2))
    await client.send("input_audio_buffer.clear")
    item = client.all("response.done")[0]["response"]["output"][0]["id"]
    await client.send("conversation.item.retrieve", item_id=item)
    await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=100)
    await client.send("conversation.item.delete", item_id=item)
    await client.send("response.create", response={"output_modalities": ["text"]})
    await client.one("response.done", 3)
    client.service.speaker.script = reply(frames=400, pause_s=0.01)
    await client.send("response.create")
    await client.one("response.created", 4)
    await client.send("output_audio_buffer.clear")
    await client.one("output_audio_buffer.cleared")
    expected = {name for name in names(RealtimeServerEvent) if not any(word in name for word in CANNOT)} - OTHERS
    assert set(client.kinds) == expected


async def _hears(client: Client, sound: bytes) -> None:
    for piece in pieces(sound, 0.1):
        await client.send("input_audio_buffer.append", audio=base64.b64encode(piece).decode())
