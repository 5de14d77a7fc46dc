"""What a turn reads of a long conversation, and what a session keeps of it."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import PromptTooLong, TooLarge
from chroma_models.types import LISTEN_RATE_HZ, Audio, Message, Text, Turn
from deployments.ingress.config import AudioLimits, SessionLimits
from deployments.ingress.session.errors import DuplicateItem, UnknownItem
from deployments.ingress.session.events import ResponseDone
from deployments.ingress.session.history import History, Room, read, tokens_of
from deployments.ingress.session.items import Item, Piece, Reply, Speech, Words
from deployments.ingress.session.settings import Truncation
from tests.deployments.ingress.scripted import items, reply
from tests.deployments.ingress.session.conftest import Begin

AMPLE = Room(100_000, 300.0, 16)
AUTO = Truncation()


def said(number: int, text: str = "", role: str = "user") -> Item:
    return Item(f"{role}_{number}", role, (Words(text or f"words {number}"),))  # type: ignore[arg-type]


def spoken(number: int, seconds: float) -> Item:
    return Item(f"user_{number}", "user", (Speech(Audio(bytes(2 * int(seconds * LISTEN_RATE_HZ)))),))


def exchanges(count: int) -> list[Item]:
    return [item for n in range(count) for item in (said(n), said(n, role="assistant"))]


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [part.text for message in messages for part in message.parts if isinstance(part, Text)]


def test_a_conversation_that_fits_is_read_whole_after_the_instructions() -> None:
    messages = read(exchanges(3), "Be brief.", AMPLE, AUTO)
    assert [message.role for message in messages] == ["system", *["user", "assistant"] * 3]
    assert texts(messages)[0] == "Be brief."


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(0, 600))
def test_whole_exchanges_are_dropped_oldest_first(lengths: list[int], tokens: int) -> None:
    conversation = [
        item
        for n, length in enumerate(lengths)
        for item in (said(n, "a" * length), said(n, "b" * length, role="assistant"))
    ]
    messages = read(conversation, "", Room(tokens, 300.0, 16), AUTO)
    whole = read(conversation, "", AMPLE, AUTO)
    assert messages == whole[len(whole) - len(messages) :]  # the newest, in order
    assert len(messages) % 2 == 0
    assert len(messages) >= 2  # the newest exchange, whatever it takes
    if len(messages) > 2:
        assert tokens_of(messages) <= tokens
    if len(messages) < len(whole):
        one_more = whole[len(whole) - len(messages) - 2 :]
        assert sum(tokens_of(one_more[at : at + 2]) for at in range(0, len(one_more), 2)) > tokens


def test_what_the_system_said_is_never_dropped() -> None:
    conversation = [said(0), said(0, "Answer in English.", role="system"), said(1), said(2)]
    messages = read(conversation, "", Room(tokens_of(read([said(2)], "", AMPLE, AUTO)), 300.0, 16), AUTO)
    assert texts(messages) == ["Answer in English.", "words 2"]


def test_the_newest_audio_is_cut_at_its_beginning() -> None:
    (message,) = read([spoken(0, 10.0)], "", Room(100_000, 4.0, 16), AUTO)
    assert message.parts[0].seconds == 4.0  # type: ignore[union-attr]


def test_spoken_parts_are_counted() -> None:
    conversation = [spoken(n, 0.2) for n in range(20)]
    assert len(read(conversation, "", AMPLE, AUTO)) == 16


def test_less_is_kept_where_that_was_asked_for_so_that_it_happens_less_often() -> None:
    conversation = exchanges(20)
    room = Room(tokens_of(read(conversation, "", AMPLE, AUTO)) - 1, 300.0, 16)
    kept, half = read(conversation, "", room, AUTO), read(conversation, "", room, Truncation("auto", 0.5))
    assert len(kept) == 38
    assert 16 <= len(half) <= 20


def test_nothing_is_dropped_where_that_was_asked_for() -> None:
    assert len(read(exchanges(20), "", Room(10, 1.0, 1), Truncation("disabled"))) == 40


def test_what_was_not_heard_is_not_read() -> None:
    cut = Reply((Piece(0, "It"), Piece(2, " is")), 4).heard_until(240)
    never = Reply((Piece(0, "Hello"),), 2).heard_until(0)
    conversation = [said(0), Item("a", "assistant", (cut,)), said(1), Item("b", "assistant", (never,))]
    assert texts(read(conversation, "", AMPLE, AUTO)) == ["words 0", "It is", "words 1"]


def test_items_go_where_they_are_told() -> None:
    history = History(SessionLimits(), AudioLimits())
    assert history.add(said(1)) is None
    assert history.add(said(3)) == "user_1"
    assert history.add(said(2), "user_1") == "user_1"
    assert history.add(said(0), "root") is None
    assert [item.id for item in history.items] == ["user_0", "user_1", "user_2", "user_3"]
    with pytest.raises(DuplicateItem):
        history.add(said(2))
    with pytest.raises(UnknownItem) as unknown:
        history.add(said(9), "user_7")
    assert unknown.value.code == "item_create_invalid_item_id"


def test_the_oldest_is_forgotten_beyond_the_limits() -> None:
    history = History(SessionLimits(max_items=4, max_text_chars=30), AudioLimits(max_audio_s=1.0))
    for n in range(6):
        history.add(said(n, "12345"))
    assert [item.id for item in history.items] == ["user_2", "user_3", "user_4", "user_5"]
    history.add(said(6, "1" * 20))
    assert [item.id for item in history.items] == ["user_4", "user_5", "user_6"]
    with pytest.raises(TooLarge):
        history.add(said(7, "1" * 31))
    for n in range(7, 10):
        history.add(spoken(n, 0.6))
    kept = [part.audio is not None for item in history.items for part in item.parts if isinstance(part, Speech)]
    assert kept == [False, True, True]


async def test_a_turn_that_the_reasoner_finds_too_long_is_tried_with_less(begin: Begin) -> None:
    talk = begin()
    for n in range(8):
        await talk.answered(f"word{n} " + "long " * 200)
    too_long, short = items(PromptTooLong("The conversation is too long.", "messages")), reply(frames=4)

    def script(turn: Turn) -> AsyncGenerator[Any, None]:
        return (too_long if len(turn.messages) > 6 else short)(turn)

    talk.speaker.script = script
    talk.speaker.by_word.clear()
    tried = len(talk.speaker.turns)
    done = await talk.answered("the last")
    assert done.status == "completed"
    assert len(talk.speaker.turns) - tried > 1
    assert talk.speaker.turns[-1].messages[-1].parts == (Text("the last"),)


async def test_a_turn_that_can_never_fit_fails_and_so_does_one_that_must_not_be_cut(begin: Begin) -> None:
    for truncation in (Truncation(), Truncation("disabled")):
        talk = begin(truncation=truncation)
        talk.speaker.script = items(PromptTooLong("The conversation is too long.", "messages"))
        talk.say("hello")
        talk.session.respond()
        done = await talk.one_of(ResponseDone)
        assert done.status == "failed"
        assert isinstance(done.error, PromptTooLong)
