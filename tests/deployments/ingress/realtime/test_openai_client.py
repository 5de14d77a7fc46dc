"""The official client, unmodified."""

import base64

import pytest
import websockets

from tests.deployments.ingress.conftest import Service
from tests.deployments.ingress.scripted import WORDS, reply, tone

QUESTION = base64.b64encode((tone(24_000, 24_000) * 32767).astype("<i2").tobytes()).decode()


async def test_two_turns_and_a_barge_in(service: Service) -> None:
    service.speaker.script = reply(frames=10)
    service.speaker.by_word["long"] = reply(frames=500, pause_s=0.01)
    async with service.openai.realtime.connect(model="chroma") as live:
        await live.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        await live.input_audio_buffer.append(audio=QUESTION)
        await live.input_audio_buffer.commit()
        await live.response.create()
        words, pcm, statuses = "", b"", []
        async for event in live:
            if event.type == "response.output_audio_transcript.delta":
                words += event.delta
            elif event.type == "response.output_audio.delta":
                pcm += base64.b64decode(event.delta)
                if len(statuses) == 1:
                    await live.response.cancel()
                    await live.conversation.item.truncate(item_id=event.item_id, content_index=0, audio_end_ms=160)
                    statuses.append("asked")
            elif event.type == "response.done":
                statuses.append(event.response.status)
                if len(statuses) == 1:
                    assert words == "".join(WORDS[:5])
                    assert len(pcm) == 10 * 1920 * 2
                    text = [{"type": "input_text", "text": "long please"}]
                    await live.conversation.item.create(item={"type": "message", "role": "user", "content": text})
                    await live.response.create()
            elif event.type == "conversation.item.truncated":
                assert event.audio_end_ms == 160
                break
    assert statuses == ["completed", "asked", "cancelled"]
    await service.speaker.all_closed()


async def test_an_unknown_model_is_refused_before_the_upgrade(service: Service) -> None:
    with pytest.raises(websockets.InvalidStatus, match="404"):
        await service.openai.realtime.connect(model="gpt-4o").enter()
