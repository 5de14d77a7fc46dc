"""Items, responses beside the conversation, and audio in every format, as a client sees them."""

import base64
from typing import Any

import numpy as np
import pytest
import soxr

from chroma_models.types import Audio, Text
from deployments.ingress import g711
from deployments.ingress.audio_in import question
from deployments.ingress.config import AudioLimits
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.realtime.conftest import Dial
from tests.deployments.ingress.scripted import WORDS, reply, spoken_pcm, tone

Json = dict[str, Any]
OFF = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
QUESTION = (tone(24_000, 24_000) * 32767).astype("<i2").tobytes()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def message(role: str, *content: Json, **fields: Any) -> Json:
    return {"type": "message", "role": role, "content": list(content), **fields}


def written(text: str) -> Json:
    return {"type": "input_text", "text": text}


def read(client: Client, turn: int = -1) -> list[tuple[str, str]]:
    """Roles and texts of what a turn was given to read."""
    messages = client.service.speaker.turns[turn].messages
    return [(m.role, "".join(p.text for p in m.parts if isinstance(p, Text))) for m in messages]


async def test_history_is_replayed_in_the_order_asked_for(dial: Dial) -> None:
    client = await dial()
    await client.send("conversation.item.create", item=message("user", written("second"), id="b"))
    await client.send(
        "conversation.item.create", item=message("user", written("first"), id="a"), previous_item_id="root"
    )
    said = message("assistant", {"type": "output_text", "text": "an answer"}, id="c")
    await client.send("conversation.item.create", item=said, previous_item_id="a")
    await client.send("conversation.item.create", item=message("system", written("rules")))
    await client.send("conversation.item.create", item=message("user", written("again"), id="a"))
    assert (await client.one("error"))["error"]["code"] == "item_create_duplicate_item_id"
    await client.answered("third")
    assert read(client) == [
        ("user", "first"), ("assistant", "an answer"), ("user", "second"), ("system", "rules"), ("user", "third")
    ]  # fmt: skip
    added = {e["item"]["id"]: e["previous_item_id"] for e in client.all("conversation.item.added")}
    assert (added["b"], added["a"], added["c"]) == (None, None, "a")
    assert client.all("conversation.item.done")[2]["item"]["content"] == said["content"]


async def test_a_spoken_item_is_heard_and_given_back(dial: Dial) -> None:
    client = await dial()
    await client.send("session.update", session=OFF)
    spoken = {"type": "input_audio", "audio": base64_of(QUESTION), "transcript": "a tone"}
    await client.send("conversation.item.create", item=message("user", spoken, id="mine"))
    await client.send("conversation.item.retrieve", item_id="mine")
    (content,) = (await client.one("conversation.item.retrieved"))["item"]["content"]
    assert content["transcript"] == "a tone"
    heard = np.frombuffer(base64.b64decode(content["audio"]), "<i2").astype(np.float64)
    sent = np.frombuffer(QUESTION, "<i2").astype(np.float64)
    assert len(heard) == len(sent)
    assert np.abs(heard - sent)[500:-500].max() < 200  # it went through 16 kHz
    assert "audio" not in client.all("conversation.item.added")[0]["item"]["content"][0]
    await client.send("response.create")
    await client.one("response.done")
    assert client.service.speaker.turns[0].messages[0].parts == (question(QUESTION, "pcm16", AudioLimits()),)


async def test_a_deleted_item_is_not_read(dial: Dial) -> None:
    client = await dial()
    await client.say("forget this", id="gone")
    await client.send("conversation.item.delete", item_id="gone")
    assert (await client.one("conversation.item.deleted"))["item_id"] == "gone"
    await client.answered("hello")
    assert read(client) == [("user", "hello")]
    for verb in ("delete", "retrieve", "truncate"):
        extra = {"audio_end_ms": 5, "content_index": 0} if verb == "truncate" else {}
        await client.send(f"conversation.item.{verb}", item_id="gone", **extra)
    await client.one("error", 3)
    codes = [event["error"]["code"] for event in client.all("error")]
    assert codes == [f"item_{verb}_invalid_item_id" for verb in ("delete", "retrieve", "truncate")]


async def test_truncation_is_clamped_and_the_next_turn_reads_what_was_heard(dial: Dial) -> None:
    client = await dial()
    client.service.speaker.script = reply(frames=10)
    item_id = (await client.answered())["output"][0]["id"]
    for end_ms in (99_999, 330):
        await client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=end_ms)
    await client.one("conversation.item.truncated", 2)
    assert [e["audio_end_ms"] for e in client.all("conversation.item.truncated")] == [800, 330]
    await client.answered("go on")
    assert read(client)[1] == ("assistant", "".join(WORDS[:2]))
    await client.say("mine", id="mine")
    await client.send("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=0)
    assert (await client.one("error"))["error"]["param"] == "item_id"


async def test_a_response_beside_the_conversation_leaves_no_trace_in_it(dial: Dial) -> None:
    client = await dial()
    await client.say("hello", id="mine")
    beside = {
        "conversation": "none",
        "metadata": {"topic": "aside"},
        "instructions": "Sort this.",
        "output_modalities": ["text"],
        "input": [{"type": "item_reference", "id": "mine"}, message("user", written("and this"))],
    }
    await client.send("response.create", response=beside)
    done = (await client.one("response.done"))["response"]
    created = client.all("response.created")[0]["response"]
    assert created["metadata"] == done["metadata"] == {"topic": "aside"}
    assert created["conversation_id"] is None
    assert done["output"][0]["content"] == [{"type": "output_text", "text": "".join(WORDS[:5])}]
    assert read(client) == [("system", "Sort this."), ("user", "hello"), ("user", "and this")]
    assert len(client.all("conversation.item.added")) == 1
    assert "response.output_audio.delta" not in client.kinds
    assert "".join(e["delta"] for e in client.all("response.output_text.delta")) == "".join(WORDS[:5])
    await client.answered("go on")
    assert read(client) == [("user", "hello"), ("user", "go on")]
    await client.send(
        "response.create", response={"conversation": "none", "input": [{"type": "item_reference", "id": "x"}]}
    )
    assert (await client.one("error"))["error"]["code"] == "item_reference_invalid_item_id"


async def test_a_conversation_is_answered_once_at_a_time(dial: Dial) -> None:
    client = await dial()
    client.service.speaker.script = reply(frames=100, pause_s=0.02)
    await client.say("hello")
    await client.send("response.create")
    await client.send("response.create")
    assert (await client.one("error"))["error"]["code"] == "conversation_already_has_active_response"
    assert (await client.one("response.done"))["response"]["status"] == "completed"


async def test_instructions_alone_can_be_answered_and_nothing_cannot(dial: Dial) -> None:
    client = await dial()
    await client.send("response.create")
    failed = (await client.one("response.done"))["response"]
    assert failed["status"] == "failed"
    assert "nothing to answer" in failed["status_details"]["error"]["message"]
    await client.send("response.create", response={"instructions": "Greet the caller."})
    assert (await client.one("response.done", 2))["response"]["status"] == "completed"
    assert read(client) == [("system", "Greet the caller.")]


async def test_a_reply_that_was_cut_by_its_limit_is_incomplete(dial: Dial) -> None:
    client = await dial()
    client.service.speaker.script = reply(frames=4, reason="max_text_tokens")
    response = await client.answered()
    assert (response["status"], response["status_details"]) == (
        "incomplete",
        {"type": "incomplete", "reason": "max_output_tokens"},
    )
    await client.send("response.create", response={"max_output_tokens": 7, "chroma": {"max_reply_s": 2.0, "seed": 5}})
    await client.one("response.done", 2)
    turn = client.service.speaker.turns[1]
    assert (turn.limits.max_text_tokens, turn.limits.max_reply_s, turn.sampling.seed) == (7, 2.0, 5)


async def test_usage_and_what_was_measured_come_with_the_response(dial: Dial) -> None:
    client = await dial()
    await client.send("session.update", session=OFF)
    await client.append(QUESTION)
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    response = (await client.one("response.done"))["response"]
    usage = response["usage"]
    assert usage["input_tokens"] == usage["input_token_details"]["text_tokens"] + 25
    assert usage["input_token_details"]["audio_tokens"] == 25
    assert usage["output_token_details"] == {"text_tokens": 5, "audio_tokens": 10}
    assert usage["total_tokens"] == usage["input_tokens"] + 15
    assert response["chroma"]["audio_s"] == 0.8
    assert response["chroma"]["stages"] == {"backbone.prefill": 0.01}
    assert response["chroma"]["first_audio_s"] >= 0


@pytest.mark.parametrize(("name", "law"), [("audio/pcmu", "mulaw"), ("audio/pcma", "alaw")])
async def test_the_telephone_is_heard_and_answered(dial: Dial, name: str, law: g711.Law) -> None:
    client = await dial()
    client.service.speaker.script = reply(frames=10)
    phone = {"input": {"format": {"type": name}, "turn_detection": None}, "output": {"format": {"type": name}}}
    await client.send("session.update", session={"type": "realtime", "audio": phone})
    data = g711.compress((tone(8_000, 8_000) * 32767).astype(np.int16), law)
    for at in range(0, len(data), 160):
        await client.append(data[at : at + 160])
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    response = (await client.one("response.done"))["response"]
    (heard,) = client.service.speaker.turns[0].messages[0].parts
    assert isinstance(heard, Audio)
    assert np.abs(heard.samples() - tone(16_000, 16_000))[800:-800].max() < 0.03
    said = g711.expand(client.audio(response["id"]), law) / 32768
    expected = soxr.resample(spoken_pcm(10), 24_000, 8_000)
    assert len(said) == len(expected) == 6400
    assert np.abs(said - expected)[200:-200].max() < 0.03
    assert response["audio"]["output"]["format"] == {"type": name}


async def test_the_format_may_change_in_the_middle_of_the_input(dial: Dial) -> None:
    client = await dial()
    await client.send("session.update", session=OFF)
    await client.append(QUESTION)
    update = {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
    await client.send("session.update", session=update)
    await client.append(g711.compress((tone(8_000, 8_000) * 32767).astype(np.int16), "mulaw"))
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    await client.one("response.done")
    assert client.service.speaker.turns[0].messages[0].parts[0].seconds == 2.0  # type: ignore[union-attr]


async def test_a_cleared_buffer_is_empty(dial: Dial) -> None:
    client = await dial()
    await client.send("session.update", session=OFF)
    await client.append(QUESTION)
    await client.send("input_audio_buffer.clear")
    await client.send("input_audio_buffer.commit")
    assert (await client.one("error"))["error"]["code"] == "input_audio_buffer_commit_empty"
    assert client.kinds[-2:] == ["input_audio_buffer.cleared", "error"]


async def test_a_buffer_holds_only_so_much(dial: Dial) -> None:
    client = await dial(session={"max_input_s": 1.5})
    await client.send("session.update", session=OFF)
    await client.append(QUESTION)
    await client.append(QUESTION)
    assert (await client.one("error"))["error"]["code"] == "too_large"
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    await client.one("response.done")
    assert client.service.speaker.turns[0].messages[0].parts[0].seconds == 1.0  # type: ignore[union-attr]
