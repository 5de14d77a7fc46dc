"""Server VAD on real speech: when turns begin and end, and what follows."""

from dataclasses import replace

import numpy as np
import pytest
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chroma_models.errors import StageUnavailable
from chroma_models.types import Audio
from deployments.ingress import g711
from deployments.ingress.config import VadSettings
from deployments.ingress.live_audio import MULAW_8K
from deployments.ingress.session.events import (
    AudioCommitted,
    Delta,
    IdleTimeout,
    ItemAdded,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)
from deployments.ingress.session.settings import TurnDetection
from deployments.ingress.session.turn_taking import CHUNK_SAMPLES, Began, Ended, TurnTaking
from deployments.ingress.session.vad import Vad
from tests.deployments.ingress.scripted import reply, until
from tests.deployments.ingress.session.conftest import Begin, Talk
from tests.deployments.ingress.session.speech import pieces, seconds, silence, spoken

LISTENING = TurnDetection()


async def hear(talk: Talk, *sounds: bytes, piece_s: float = 0.02) -> None:
    for sound in sounds:
        for piece in pieces(sound, piece_s):
            await talk.session.append_audio(piece)


async def test_a_spoken_turn_is_found_committed_and_answered(begin: Begin) -> None:
    talk = begin(turn_detection=LISTENING)
    await hear(talk, silence(1.0), spoken(), silence(1.0))
    await talk.one_of(ResponseDone)
    kinds = [type(event) for event in talk.told if not isinstance(event, Delta)]
    assert kinds[:6] == [SpeechStarted, SpeechStopped, AudioCommitted, ItemAdded, ResponseStarted, OutputStarted]
    started, stopped = talk.all_of(SpeechStarted)[0], talk.all_of(SpeechStopped)[0]
    assert 600 <= started.start_ms <= 1000  # 300 ms of padding before the first word
    assert abs(stopped.end_ms - 1000 - 1000 * seconds(spoken()) - 500) < 150
    assert started.item_id == stopped.item_id == talk.session.items[0].id
    (heard,) = talk.speaker.turns[0].messages[0].parts
    assert isinstance(heard, Audio)
    assert abs(1000 * heard.seconds - (stopped.end_ms - started.start_ms)) < 1


async def test_the_pieces_sound_comes_in_change_nothing(begin: Begin) -> None:
    told = []
    for piece_s in (0.005, 0.02, 0.1, 10.0):
        talk = begin(turn_detection=LISTENING)
        await hear(talk, silence(0.5) + spoken() + silence(1.0), piece_s=piece_s)
        await talk.one_of(ResponseDone)
        started, stopped = talk.all_of(SpeechStarted)[0], talk.all_of(SpeechStopped)[0]
        told.append((started.start_ms, stopped.end_ms, talk.speaker.turns[0].messages[0].parts[0].pcm))
    assert told.count(told[0]) == len(told)


async def test_silence_and_noise_begin_no_turn(begin: Begin) -> None:
    talk = begin(turn_detection=LISTENING)
    noise = (np.random.default_rng(0).normal(0, 300, 48_000)).astype("<i2").tobytes()
    await hear(talk, silence(1.0), noise, silence(1.0), spoken(), silence(1.0))
    started = await talk.one_of(SpeechStarted)
    assert started.start_ms > 3500


async def test_prefix_padding_reaches_into_the_silence_before(begin: Begin) -> None:
    starts = []
    for padding_ms in (0, 300, 5000):
        talk = begin(turn_detection=replace(LISTENING, prefix_padding_ms=padding_ms))
        await hear(talk, silence(2.0), spoken(), silence(1.0))
        starts.append((await talk.one_of(SpeechStarted)).start_ms)
    assert starts[0] - starts[1] == 300
    assert starts[2] == 0  # there is no more than there is


async def test_a_pause_shorter_than_the_silence_asked_for_does_not_end_a_turn(begin: Begin) -> None:
    talk = begin(turn_detection=replace(LISTENING, silence_duration_ms=1500))
    await hear(talk, silence(0.5), spoken(), silence(0.8), spoken(), silence(2.0))
    await talk.one_of(ResponseDone)
    assert len(talk.all_of(SpeechStopped)) == 1
    assert talk.speaker.turns[0].messages[0].parts[0].seconds > 2 * seconds(spoken())


async def test_speaking_stops_the_reply(begin: Begin) -> None:
    talk = begin(turn_detection=LISTENING)
    talk.speaker.script = reply(frames=500, pause_s=0.01)
    talk.say("hello")
    talk.session.respond()
    await talk.one_of(Delta)
    await hear(talk, silence(0.5), spoken())
    done = await talk.one_of(ResponseDone)
    assert (done.status, done.reason) == ("cancelled", "turn_detected")
    started = talk.all_of(SpeechStarted)[0]
    after = talk.told[talk.told.index(started) :]
    assert not any(isinstance(event, Delta) for event in after)
    await talk.speaker.all_closed()


async def test_a_reply_may_be_told_not_to_stop_and_the_next_turn_is_answered_after_it(begin: Begin) -> None:
    talk = begin(turn_detection=replace(LISTENING, interrupt_response=False))
    talk.speaker.by_word["long"] = reply(frames=200, pause_s=0.02)
    talk.say("long please")
    talk.session.respond()
    await talk.one_of(Delta)
    await hear(talk, silence(0.5), spoken(), silence(1.0))
    await talk.one_of(SpeechStopped)
    assert len(talk.all_of(ResponseStarted)) == 1
    first, second = await talk.one_of(ResponseDone), await talk.one_of(ResponseDone, 2)
    assert [first.status, second.status] == ["completed", "completed"]
    heard = [type(part) for message in talk.speaker.turns[1].messages for part in message.parts]
    assert Audio in heard


async def test_turns_may_be_found_without_being_answered(begin: Begin) -> None:
    talk = begin(turn_detection=replace(LISTENING, create_response=False))
    await hear(talk, silence(0.5), spoken(), silence(1.0))
    await talk.one_of(ItemAdded)
    assert talk.all_of(ResponseStarted) == []


async def test_silence_after_a_reply_is_answered_when_asked_for(begin: Begin) -> None:
    talk = begin(turn_detection=replace(LISTENING, idle_timeout_ms=300))
    talk.speaker.script = reply(frames=2)
    await talk.answered()
    await hear(talk, silence(2.0))
    timeout = await talk.one_of(IdleTimeout)
    await talk.one_of(ResponseDone, 2)
    (heard,) = talk.speaker.turns[1].messages[-1].parts
    assert isinstance(heard, Audio)
    assert abs(1000 * heard.seconds - (timeout.end_ms - timeout.start_ms)) < 1
    assert [type(e) for e in talk.told[talk.told.index(timeout) :]][1:4] == [AudioCommitted, ItemAdded, ResponseStarted]


async def test_committing_by_hand_in_the_middle_of_a_turn_begins_another(begin: Begin) -> None:
    talk = begin(turn_detection=replace(LISTENING, create_response=False))
    await hear(talk, silence(0.5), spoken())
    started = await talk.one_of(SpeechStarted)
    assert talk.session.commit() == started.item_id
    await hear(talk, spoken(), silence(1.0))
    stopped = await talk.one_of(SpeechStopped)
    assert stopped.item_id != started.item_id
    assert len(talk.session.items) == 2


async def test_telephone_audio_is_understood_too(begin: Begin) -> None:
    talk = begin(turn_detection=LISTENING, input=MULAW_8K)
    sound = np.frombuffer(silence(0.5) + spoken() + silence(1.0), "<i2")
    eight = (soxr.resample(sound.astype(np.float32) / 32768, 24_000, 8_000) * 32767).astype(np.int16)
    data = g711.compress(eight, "mulaw")
    for at in range(0, len(data), 160):
        await talk.session.append_audio(data[at : at + 160])
    await talk.one_of(ResponseDone)
    assert len(talk.all_of(SpeechStarted)) == 1


async def test_sessions_hear_together_what_each_would_alone() -> None:
    def heard_by(vad: Vad, sound: bytes) -> list[float]:
        heard: list[float] = []
        vad.stream(heard.append).listen(np.frombuffer(sound, "<i2"))
        return heard

    rng = np.random.default_rng(1)
    sounds = [spoken()[2 * int(start) :] for start in rng.integers(0, 20_000, 12)]
    expected = []
    for sound in sounds:
        vad = Vad(VadSettings())
        alone = heard_by(vad, sound)
        await until(lambda alone=alone, sound=sound: len(alone) == len(sound) // 2 // CHUNK_SAMPLES)
        expected.append(alone)
        vad.close()
    vad = Vad(VadSettings())
    together = [heard_by(vad, sound) for sound in sounds]
    await until(lambda: all(len(t) == len(e) for t, e in zip(together, expected, strict=True)))
    vad.close()
    for heard, alone in zip(together, expected, strict=True):
        assert np.abs(np.array(heard) - alone).max() < 1e-4


@given(st.lists(st.floats(0, 1), max_size=200), st.integers(0, 2000), st.integers(64, 2000))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_turns_alternate_and_never_overlap(probabilities: list[float], padding_ms: int, silence_ms: int) -> None:
    detection = TurnDetection(prefix_padding_ms=padding_ms, silence_duration_ms=silence_ms)
    turns = TurnTaking(detection, 1000)
    found = [turn for p in probabilities if (turn := turns.heard(p)) is not None]
    assert [type(turn) for turn in found] == [Began, Ended] * (len(found) // 2) + [Began] * (len(found) % 2)
    samples = [turn.sample for turn in found]
    assert samples == sorted(samples)
    assert turns.speaking == (len(found) % 2 == 1)


def test_what_was_taken_before_it_was_heard_begins_no_turn() -> None:
    """A commit by hand takes sound that still waits for the network."""
    waiting = 3
    turns = TurnTaking(TurnDetection(), 0)
    turns.restart(waiting * CHUNK_SAMPLES)
    assert [turns.heard(1.0) for _ in range(waiting)] == [None] * waiting
    assert not turns.speaking
    assert turns.heard(1.0) is None
    assert turns.heard(1.0) == Began(waiting * CHUNK_SAMPLES)


async def test_a_session_that_fails_deafens_no_other() -> None:
    def fail(probability: float) -> None:
        raise RuntimeError("a fault")

    vad = Vad(VadSettings())
    heard: list[float] = []
    bad, good = vad.stream(fail), vad.stream(heard.append)
    sound = np.frombuffer(spoken(), "<i2")
    bad.listen(sound)
    good.listen(sound)
    await until(lambda: len(heard) == len(sound) // CHUNK_SAMPLES)
    with pytest.raises(StageUnavailable):
        bad.listen(sound)
    vad.close()
