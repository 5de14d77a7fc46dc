"""A conversation, step by step."""

import numpy as np
import pytest

from chroma_models.errors import StageUnavailable
from chroma_models.types import Audio, Text
from deployments.ingress.audio_in import question
from deployments.ingress.config import AudioLimits
from deployments.ingress.session.errors import AlreadyAnswering, EmptyBuffer, NothingToCancel, SessionClosed
from deployments.ingress.session.events import (
    AudioCommitted,
    Delta,
    ItemAdded,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
)
from deployments.ingress.session.items import Reply
from tests.deployments.ingress.scripted import WORDS, items, reply, spoken_pcm, tone, until
from tests.deployments.ingress.session.conftest import Begin, Talk

QUESTION = (tone(24_000, 24_000) * 32767).astype("<i2").tobytes()


async def test_a_written_question_is_answered_aloud(talk: Talk) -> None:
    talk.speaker.script = reply(frames=10)
    done = await talk.answered()
    assert done.status == "completed"
    kinds = [type(event) for event in talk.told]
    assert kinds == [ItemAdded, ResponseStarted, OutputStarted, Delta, Delta, Delta, OutputDone, ResponseDone]
    heard = b"".join(delta.audio for delta in talk.all_of(Delta))
    assert np.abs(np.frombuffer(heard, "<i2") / 32768 - spoken_pcm(10)).max() < 1e-4
    assert "".join(delta.text for delta in talk.all_of(Delta)) == "".join(WORDS[:5])
    (said,) = talk.speaker.turns[0].messages
    assert said.parts == (Text("hello"),)
    assert done.usage.audio_tokens == 10
    assert done.report["finish"] == "end_of_speech"


async def test_the_next_turn_reads_the_last(talk: Talk) -> None:
    await talk.answered("first")
    await talk.answered("second")
    said = [(m.role, m.parts[0].text) for m in talk.speaker.turns[1].messages]
    assert said == [("user", "first"), ("assistant", "".join(WORDS[:5])), ("user", "second")]
    assert talk.speaker.turns[0].affinity == talk.speaker.turns[1].affinity


async def test_what_is_taken_after_the_end_is_history_too(talk: Talk) -> None:
    talk.speaker.script = reply(frames=100)
    talk.reading = False
    talk.say("hello")
    talk.session.respond()
    await until(lambda: talk.session.busy and len(talk.session._outbox._deltas) > 0)
    await talk.session.close()
    talk.reading = True
    words = "".join(WORDS) * 10
    await until(lambda: bool(talk.all_of(Delta)) and talk.session.items[-1].role == "assistant")
    (part,) = talk.session.items[-1].parts
    assert isinstance(part, Reply)
    assert part.text == "".join(delta.text for delta in talk.all_of(Delta)) != ""
    assert words.startswith(part.text)


async def test_committed_audio_is_heard_as_the_same_clip_over_chat(talk: Talk) -> None:
    for start in range(0, len(QUESTION), 960):
        await talk.session.append_audio(QUESTION[start : start + 960])
    talk.session.commit()
    talk.session.respond()
    await talk.one_of(ResponseDone)
    (message,) = talk.speaker.turns[0].messages
    (heard,) = message.parts
    assert isinstance(heard, Audio)
    assert heard == question(QUESTION, "pcm16", AudioLimits())
    assert [type(event) for event in talk.told[:2]] == [AudioCommitted, ItemAdded]


async def test_a_buffer_without_a_tenth_of_a_second_is_no_turn(talk: Talk) -> None:
    with pytest.raises(EmptyBuffer):
        talk.session.commit()
    await talk.session.append_audio(QUESTION[: 2 * 2399])
    with pytest.raises(EmptyBuffer):
        talk.session.commit()
    await talk.session.append_audio(QUESTION[:2])
    talk.session.commit()


async def test_a_cancelled_response_says_nothing_more_and_frees_its_stages(talk: Talk) -> None:
    talk.speaker.script = reply(frames=200, group=4, pause_s=0.01)
    talk.say("hello")
    talk.session.respond()
    await talk.one_of(Delta, 2)
    talk.session.cancel()
    done = await talk.one_of(ResponseDone)
    await talk.speaker.all_closed()
    assert (done.status, done.reason) == ("cancelled", "client_cancelled")
    assert [type(event) for event in talk.told[-2:]] == [OutputDone, ResponseDone]
    sent = sum(delta.frames for delta in talk.all_of(Delta))
    (part,) = talk.session.items[-1].parts
    assert isinstance(part, Reply)
    assert part.frames == sent
    assert part.text == "".join(delta.text for delta in talk.all_of(Delta))
    with pytest.raises(NothingToCancel, match=r"^Cancellation failed"):
        talk.session.cancel()


async def test_what_was_not_taken_was_not_said(talk: Talk) -> None:
    talk.speaker.script = reply(frames=200, group=1)
    talk.say("hello")
    await talk.one_of(ItemAdded)
    talk.reading = False
    talk.session.respond()
    await until(lambda: bool(talk.speaker.turns))
    talk.session.cancel()
    talk.reading = True
    await talk.one_of(ResponseDone)
    assert talk.all_of(Delta) == []
    assert not any(part.text for item in talk.session.items[1:] for part in item.parts)


async def test_history_keeps_only_what_was_heard(talk: Talk) -> None:
    talk.speaker.script = reply(frames=10)
    await talk.answered()
    item = talk.session.items[-1]
    talk.session.truncate(item.id, 0, 330)  # four frames: two words
    await talk.answered("go on")
    said = [m.parts[0].text for m in talk.speaker.turns[1].messages if m.role == "assistant"]
    assert said == ["".join(WORDS[:2])]


async def test_a_failed_turn_leaves_the_session_alive(talk: Talk) -> None:
    talk.speaker.by_word["break"] = items(StageUnavailable("The Codec was lost.", 1.0))
    failed = await talk.answered("break it")
    assert failed.status == "failed"
    assert isinstance(failed.error, StageUnavailable)
    assert failed.output == ()
    assert (await talk.answered("hello")).status == "completed"


async def test_a_conversation_is_answered_once_at_a_time_and_others_beside_it(talk: Talk) -> None:
    talk.speaker.script = reply(frames=50, pause_s=0.01)
    talk.say("hello")
    talk.session.respond()
    with pytest.raises(AlreadyAnswering):
        talk.session.respond()
    beside = talk.session.respond(in_conversation=False, metadata={"topic": "aside"})
    talk.session.cancel(beside)
    done = await talk.one_of(ResponseDone)
    assert done.response.id == beside
    assert done.response.metadata == {"topic": "aside"}
    assert (await talk.one_of(ResponseDone, 2)).status == "completed"
    assert len(talk.session.items) == 2


async def test_a_closed_session_takes_nothing(begin: Begin) -> None:
    talk = begin()
    talk.say("hello")
    talk.session.respond()
    await talk.session.close()
    await talk.speaker.all_closed()
    with pytest.raises(SessionClosed):
        await talk.session.append_audio(b"\0\0")
