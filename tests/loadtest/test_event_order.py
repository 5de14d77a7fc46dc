"""The check of the order of events lets a real conversation pass, and nothing else."""

import copy
from typing import Any

import numpy as np
import pytest

from loadtest.event_order import EventOrder
from loadtest.live_session import Reply
from loadtest.microphone import Utterance
from loadtest.playback import RATE_HZ, Playback

USER = ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed")
SPOKEN = (
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
)


def conversation(name: str) -> list[dict[str, Any]]:
    """A question by voice and its answer."""
    user, item, response = f"user-{name}", f"item-{name}", f"resp-{name}"
    told: list[dict[str, Any]] = [{"type": "session.created"}]
    told += [{"type": kind, "item_id": user} for kind in USER]
    told += [{"type": f"conversation.item.{end}", "item": {"id": user}} for end in ("added", "done")]
    told += [{"type": "response.created", "response": {"id": response}}]
    told += [{"type": "response.output_item.added", "response_id": response, "item": {"id": item}}]
    told += [{"type": "conversation.item.added", "item": {"id": item}}]
    told += [{"type": kind, "response_id": response, "item_id": item} for kind in SPOKEN]
    told += [{"type": "conversation.item.done", "item": {"id": item}}]
    told += [{"type": "response.output_item.done", "response_id": response, "item": {"id": item}}]
    told += [{"type": "response.done", "response": {"id": response}}]
    return [{**event, "event_id": f"{name}-{i}"} for i, event in enumerate(told)]


def seen(*events: dict[str, Any]) -> EventOrder:
    order = EventOrder(0, {})
    for event in events:
        order.see(event)
    return order


def test_a_conversation_passes() -> None:
    order = seen(*conversation("a"), *conversation("b"))
    assert order.faults == order.unfinished() == []


@pytest.mark.parametrize("at", range(1, len(conversation("a"))))
def test_a_lost_event_is_found(at: int) -> None:
    whole = conversation("a")
    if "delta" in whole[at]["type"]:
        pytest.skip("a reply may have any number of these")
    order = seen(*whole[:at], *whole[at + 1 :])
    assert order.faults + order.unfinished() != []


@pytest.mark.parametrize("at", range(1, len(conversation("a")) - 1))
def test_two_events_the_wrong_way_round_are_found(at: int) -> None:
    told = conversation("a")
    told[at], told[at + 1] = told[at + 1], told[at]
    if {"delta"} == {event["type"].rpartition(".")[2] for event in told[at : at + 2]}:
        pytest.skip("words and sound come in either order")
    apart = ("conversation.item.done", "response.created")
    if [event["type"] for event in told[at : at + 2]] == [*reversed(apart)]:
        pytest.skip("of two subjects")
    assert seen(*told).faults != []


def test_an_event_of_another_session_is_found() -> None:
    owners: dict[str, int] = {}
    mine, other = EventOrder(0, owners), EventOrder(1, owners)
    for event in conversation("a"):
        mine.see(event)
    stray = copy.deepcopy(conversation("b"))
    stray[5]["item"]["id"] = "item-a"
    for event in stray:
        other.see(event)
    assert mine.faults == []
    assert any("of another session" in fault for fault in other.faults)


def test_an_utterance_is_timed_by_what_can_be_heard() -> None:
    piece = RATE_HZ // 10
    quiet, loud = np.zeros(RATE_HZ // 4, np.int16), np.full(RATE_HZ // 2, 5000, np.int16)
    said = Utterance(np.concatenate([quiet, loud, quiet]))
    pieces = []
    for i in range(10):
        pieces.append(said.next(piece, 100 + i / 10))
        assert (said.began_at is None) == (i < 2)
        assert said.ended.is_set() == (i == 9)
    assert said.began_at == pytest.approx(100.25, abs=1e-4)
    assert said.ended_at == pytest.approx(100.75, abs=1e-4)
    assert np.array_equal(np.concatenate(pieces), said.samples)


def test_a_reply_is_silent_when_its_last_event_has_come() -> None:
    reply = Reply("resp", Playback(10.0), None)
    reply.playback.heard(2 * RATE_HZ, 10.5)
    assert (reply.first_audio_s, reply.silence_s) == (0.5, None)
    reply.stopped_at, reply.done_at = 11.0, 11.25
    assert reply.silence_s == 0.25
    reply.playback.last_audio_at = 11.5
    assert reply.silence_s == 0.5
