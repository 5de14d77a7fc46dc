"""Which part of a long conversation is kept."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import InvalidAudio
from chroma_models.types import LISTEN_RATE_HZ, Audio, Text
from deployments.ingress.audio_in import encode_base64
from deployments.ingress.config import AudioLimits
from deployments.ingress.conversation import listen
from deployments.ingress.openai_chat import ChatRequest
from deployments.ingress.replies import ReplyStore, UnknownReply
from tests.deployments.ingress.scripted import file_of, until

LIMITS = AudioLimits(max_audio_s=3.0, max_audio_parts=4)


def clip(tenths: int, mark: int = 0) -> dict[str, Any]:
    pcm = np.full(tenths * LISTEN_RATE_HZ // 10, mark, np.int16)
    audio = {"data": encode_base64(file_of(pcm, LISTEN_RATE_HZ)), "format": "wav"}
    return {"type": "input_audio", "input_audio": audio}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def kept(messages: list[dict[str, Any]]) -> list[tuple[str, list[str | float]]]:
    """Roles and parts of what is kept: texts, and seconds of audio."""
    request = ChatRequest.model_validate({"model": "m", "messages": messages})
    return [
        (m.role, [p.text if isinstance(p, Text) else round(p.seconds, 2) for p in m.parts])
        for m in listen(request.messages, {}, LIMITS)
    ]


def said(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": words}


def test_what_fits_is_kept_whole() -> None:
    messages = [{"role": "developer", "content": "s"}, user(clip(10)), said("a"), user(text("t"), clip(20))]
    assert kept(messages) == [("system", ["s"]), ("user", [1.0]), ("assistant", ["a"]), ("user", ["t", 2.0])]


def test_the_oldest_exchanges_go_whole_and_system_messages_stay() -> None:
    messages = [
        {"role": "system", "content": "s1"},
        user(text("old")),
        said("a0"),
        user(clip(20)),
        {"role": "system", "content": "s2"},
        said("a1"),
        user(clip(10)),
        said("a2"),
        user(clip(15)),
    ]
    assert kept(messages) == [
        ("system", ["s1"]),
        ("system", ["s2"]),
        ("user", [1.0]),
        ("assistant", ["a2"]),
        ("user", [1.5]),
    ]


def test_the_newest_message_loses_the_beginning_of_its_oldest_audio() -> None:
    request = ChatRequest.model_validate({"model": "m", "messages": [user(clip(20, 1), text("t"), clip(20, 2))]})
    (message,) = listen(request.messages, {}, LIMITS)
    first, words, second = message.parts
    assert isinstance(first, Audio)
    assert isinstance(second, Audio)
    assert (first.seconds, words, second.seconds) == (1.0, Text("t"), 2.0)
    assert set(np.frombuffer(first.pcm, "<i2")) == {1}


def test_dropped_audio_is_not_decoded_and_kept_audio_is() -> None:
    bad = user({"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}})
    assert kept([bad, user(clip(20)), user(clip(20))]) == [("user", [2.0])]
    with pytest.raises(InvalidAudio) as told:
        kept([bad, user(clip(20))])
    assert told.value.param == "messages[0].content[0].input_audio.data"


@given(st.lists(st.tuples(st.sampled_from("sua"), st.lists(st.integers(1, 25), max_size=6)), max_size=12))
def test_what_is_kept_is_an_ending_within_its_bounds(plan: list[tuple[str, list[int]]]) -> None:
    messages: list[dict[str, Any]] = []
    for i, (kind, clips) in enumerate([*plan, ("u", [5])]):
        if kind == "u":
            messages.append(user(text(str(i)), *(clip(n) for n in clips)))
        else:
            messages.append({"role": "system" if kind == "s" else "assistant", "content": str(i)})
    result = kept(messages)
    numbers = [int(str(parts[0])) for _, parts in result]
    spoken = [role for role, _ in result if role != "system"]
    systems = [i for i, m in enumerate(messages) if m["role"] == "system"]
    others = [i for i, m in enumerate(messages) if m["role"] != "system"]
    assert [n for n in numbers if n in systems] == systems
    assert [n for n in numbers if n in others] == others[len(others) - len(spoken) :]
    assert numbers == sorted(numbers)
    seconds = [p for _, parts in result for p in parts if isinstance(p, float)]
    assert sum(seconds) <= LIMITS.max_audio_s + 1e-6
    assert len(seconds) <= LIMITS.max_audio_parts
    assert result[-1][0] == "user"
    if len(spoken) < len(others):
        assert spoken[0] == "user"  # a reply to what was dropped is dropped with it


async def test_replies_are_forgotten_in_time_in_number_and_across_tenants() -> None:
    now = [1000.0]
    store = ReplyStore(capacity=2, clock=lambda: now[0])
    assert abs(store.add("t", 10, "a", "one") - (time.time() + 10)) < 60
    assert store.transcript("t", "a", "p") == "one"
    with pytest.raises(UnknownReply):
        store.transcript("another", "a", "p")
    store.add("t", 10, "b", "two")
    store.add("t", 10, "c", "three")
    with pytest.raises(UnknownReply):
        store.transcript("t", "a", "p")
    now[0] = 1010.0
    with pytest.raises(UnknownReply):
        store.transcript("t", "c", "p")
    store.add("t", 10, "d", "four")
    assert len(store) == 1
    store.add("t", 0, "e", "five")
    assert len(store) == 1
    with pytest.raises(UnknownReply):
        store.transcript("t", "e", "p")


async def test_a_reply_is_forgotten_without_anybody_asking() -> None:
    store = ReplyStore(capacity=2)
    store.add("t", 0.05, "a", "one")
    store.add("t", 60, "b", "two")
    assert len(store) == 2
    await until(lambda: len(store._said._TLRUCache__items) == 1)  # len() leaves out what has expired and is still held
