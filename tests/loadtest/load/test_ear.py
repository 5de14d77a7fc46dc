"""A caller's ear: clocks of playback, silence after a cancel, and what is told when the line is cut."""

import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from loadtest.load.ear import Ear, is_refusal
from loadtest.load.heartbeat import Heartbeat
from loadtest.load.mouth import Mouth
from loadtest.load.records import Pulse
from loadtest.playback import RATE_HZ, Playback


def second(ear: Ear, name: str) -> None:
    ear.audio(name, 2 * RATE_HZ)


def test_an_answer_is_timed_from_the_commit() -> None:
    ear = Ear()
    ear.committed()
    time.sleep(0.02)
    ear.begun("one")
    second(ear, "one")
    ear.done("one")
    (answer,) = ear.answers
    assert answer.playback.first_audio_s is not None
    assert answer.playback.first_audio_s >= 0.02
    assert answer.playback.audio_s == 1.0
    assert answer.silence_s is None


def test_what_comes_after_the_wish_for_silence_is_not_played_but_counted() -> None:
    ear = Ear()
    ear.begun("one")
    second(ear, "one")
    ear.answers[0].stopped_at = time.monotonic()
    time.sleep(0.02)
    second(ear, "one")
    ear.done("one", reason="cancelled")
    assert ear.answers[0].playback.audio_s == 1.0
    assert ear.answers[0].silence_s is not None
    assert ear.answers[0].silence_s >= 0.02


def test_silence_is_not_measured_where_everything_had_come_before() -> None:
    ear = Ear()
    ear.begun("one")
    ear.done("one")
    time.sleep(0.001)
    ear.answers[0].stopped_at = time.monotonic()
    assert ear.answers[0].silence_s is None


def test_a_cut_line_ends_every_wait_and_every_answer() -> None:
    ear = Ear()
    ear.begun("one")
    threading.Timer(0.05, ear.close, ["ConnectionResetError"]).start()
    began = time.monotonic()
    assert not ear.wait(lambda: False, 30.0)
    assert time.monotonic() - began < 20
    assert ear.answers[0].code == "ConnectionResetError"
    ear.close("later")
    assert ear.closed == "ConnectionResetError"


def test_refusals_are_told_from_failures() -> None:
    assert all(map(is_refusal, ("overloaded", "insufficient_quota", "stage_unavailable", "UNAVAILABLE")))
    assert not any(map(is_refusal, ("turn_timeout", "INTERNAL", "no_audio")))


def test_a_gap_is_the_longest_time_between_two_pieces() -> None:
    player = Playback(0.0)
    for now in (1.0, 1.1, 1.9, 2.0):
        player.heard(RATE_HZ, now)
    assert player.longest_gap_s == pytest.approx(0.8)
    assert Playback(0.0).longest_gap_s is None


def test_a_microphone_sends_all_that_is_said_between_silences() -> None:
    sent: list[np.ndarray] = []
    mouth = Mouth(sent.append, piece_s=0.01)
    said = np.arange(1, 1000, dtype=np.int16)
    utterance = mouth.say(said)
    mouth.open()
    while not utterance.ended.is_set():
        time.sleep(0.01)
    time.sleep(0.03)
    mouth.close()
    heard = np.concatenate(sent)
    assert {len(piece) for piece in sent} == {240}
    assert np.array_equal(heard[heard != 0], said)


def test_a_heartbeat_that_is_held_up_says_so() -> None:
    pulses: list[Pulse] = []
    heart = Heartbeat(lambda: (5, 2), pulses.append)
    heart.start()
    while not pulses:
        time.sleep(0.05)
    heart.stop()
    assert (pulses[0].sessions, pulses[0].speaking) == (5, 2)
    assert pulses[0].beats > 0
    assert 0 <= pulses[0].late_beats <= pulses[0].beats
    assert pulses[0].worst_s >= 0


def test_the_question_asked_is_speech() -> None:
    from loadtest.load.options import QUESTION

    with wave.open(str(Path(QUESTION))) as clip:
        samples = np.frombuffer(clip.readframes(clip.getnframes()), np.int16)
    assert np.abs(samples).max() > 3000
