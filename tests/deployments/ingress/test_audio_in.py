"""Clips in: exact where nothing has to change, right where it has, bounded always."""

import base64
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import InvalidAudio, TooLarge
from deployments.ingress.audio_in import BASE64_BLOCK, InputFormat, decode, decode_base64, question, voice_pcm
from deployments.ingress.config import AudioLimits
from tests.deployments.ingress.scripted import file_of, tone

LIMITS = AudioLimits()
RNG = np.random.default_rng(0)
NOISE = RNG.integers(-32768, 32768, 8_000).astype(np.int16)


def question_pcm(data: bytes, form: InputFormat, limits: AudioLimits) -> bytes:
    """What is heard, in int16 steps."""
    return np.rint(question(data, form, limits).samples() * 32768).clip(-32768, 32767).astype("<i2").tobytes()


def test_finer_steps_than_int16_are_kept_at_the_native_rate_alone() -> None:
    floats = RNG.normal(0, 0.1, 16_000).astype(np.float32)
    audio = question(file_of(floats, 16_000, coding="FLOAT"), "wav", LIMITS)
    assert np.array_equal(audio.samples(), floats)
    assert question(file_of(NOISE, 16_000), "wav", LIMITS).encoding == "int16"
    assert question(file_of(floats, 24_000, coding="FLOAT"), "wav", LIMITS).encoding == "int16"


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_a_question_at_its_native_rate_passes_bit_for_bit(form: str) -> None:
    assert question_pcm(file_of(NOISE, 16_000, form), "wav" if form == "WAV" else "flac", LIMITS) == NOISE.tobytes()


def test_a_voice_at_its_native_rate_keeps_its_samples_exactly() -> None:
    pcm = np.frombuffer(voice_pcm(file_of(NOISE, 24_000), "wav", LIMITS), "<f4")
    assert np.array_equal(pcm, NOISE.astype(np.float32) / 32768)
    floats = RNG.normal(0, 0.3, 24_000).astype(np.float32)
    pcm = np.frombuffer(voice_pcm(file_of(floats, 24_000, coding="FLOAT"), "wav", LIMITS), "<f4")
    assert np.array_equal(pcm, floats)


def test_pcm16_is_24_khz_mono_and_equals_the_wav_of_its_samples() -> None:
    assert voice_pcm(NOISE.tobytes(), "pcm16", LIMITS) == voice_pcm(file_of(NOISE, 24_000), "wav", LIMITS)
    assert question_pcm(NOISE.tobytes(), "pcm16", LIMITS) == question_pcm(file_of(NOISE, 24_000), "wav", LIMITS)


def test_stereo_is_averaged() -> None:
    stereo = RNG.normal(0, 0.2, (24_000, 2)).astype(np.float32)
    pcm = np.frombuffer(voice_pcm(file_of(stereo, 24_000, coding="FLOAT"), "wav", LIMITS), "<f4")
    assert np.abs(pcm - stereo.mean(1)).max() < 1e-7


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_keeps_the_sound_and_its_length(rate_hz: int, channels: int) -> None:
    """70,000 samples: more than a block, so blocks are joined without a seam."""
    samples = np.repeat(tone(max(70_000, rate_hz), rate_hz)[:, None], channels, axis=1)
    expected_n = len(samples) / rate_hz * 16_000
    heard = np.frombuffer(question_pcm(file_of(samples, rate_hz), "wav", LIMITS), "<i2") / 32768
    assert abs(len(heard) - expected_n) <= 1
    expected = tone(len(heard), 16_000)
    assert np.abs(heard - expected)[200:-200].max() < 1e-3


@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_plain_wav_coding_is_read(coding: str) -> None:
    heard = np.frombuffer(question_pcm(file_of(tone(16_000, 16_000), 16_000, coding=coding), "wav", LIMITS), "<i2")
    assert np.abs(heard / 32768 - tone(16_000, 16_000)).max() < 0.02


def test_mp3_is_read() -> None:
    data = file_of(tone(48_000, 24_000), 24_000, "MP3", "MPEG_LAYER_III")
    heard = np.frombuffer(question_pcm(data, "mp3", LIMITS), "<i2") / 32768
    assert abs(len(heard) - 32_000) <= 1152
    assert np.corrcoef(heard[2_000:30_000], tone(32_000, 16_000)[2_000:30_000])[0, 1] > 0.99


def test_a_wav_written_to_a_pipe_does_not_know_its_length() -> None:
    data = bytearray(file_of(NOISE, 16_000))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert question_pcm(bytes(data), "wav", LIMITS) == NOISE.tobytes()


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    """20 MB of samples in 60 KB of flac, beyond the clip's limit: the header is enough to say no."""
    limits = AudioLimits(max_clip_s=60)
    data = file_of(np.zeros(8_000 * 1_200, np.int16), 8_000, "FLAC")
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="1200 s"):
            decode(data, "flac", 16_000, limits)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_that_hides_its_length_is_stopped_at_the_limit() -> None:
    data = bytearray(file_of(np.zeros(8_000 * 1_200, np.int16), 8_000, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = b"\0\0\0\0"  # total samples: unknown
    with pytest.raises((TooLarge, InvalidAudio)):
        decode(bytes(data), "flac", 16_000, AudioLimits(max_clip_s=60))


def test_many_samples_are_too_large_however_short_they_last() -> None:
    with pytest.raises(TooLarge, match="mono"):
        decode(file_of(np.zeros((400_000, 2), np.int16), 384_000), "wav", 16_000, AudioLimits(max_clip_samples=1 << 19))


@given(st.binary(max_size=300), st.sampled_from(["wav", "mp3", "flac", "pcm16"]))
def test_bytes_at_random_raise_nothing_but_our_own(data: bytes, form: str) -> None:
    with suppress(InvalidAudio, TooLarge):
        decode(data, form, 16_000, LIMITS)  # type: ignore[arg-type]


@given(st.integers(0, 200), st.integers(0, 255), st.sampled_from(["WAV", "FLAC"]))
def test_a_damaged_header_raises_nothing_but_our_own(at: int, value: int, form: str) -> None:
    data = bytearray(file_of(NOISE, 16_000, form))
    data[at] = value
    with suppress(InvalidAudio, TooLarge):
        decode(bytes(data), "wav" if form == "WAV" else "flac", 16_000, LIMITS)


@given(st.binary(max_size=100))
def test_base64_is_read_back(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64(text) == data
    assert decode_base64("data:audio/wav;base64," + text) == data


def test_base64_longer_than_a_piece_is_read_back() -> None:
    data = RNG.bytes(BASE64_BLOCK + 12_345)
    assert decode_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "ab",
        "abc",
        "ab=c",
        "====",
        "a b=",
        "ab==" + "abcd" * BASE64_BLOCK,
        "abcd" * (BASE64_BLOCK // 4 - 1) + "ab==" + "abcd",
        "🎵🎵🎵🎵",
    ],
)
def test_what_is_not_base64_is_told(text: str) -> None:
    with pytest.raises(InvalidAudio, match="base64"):
        decode_base64(text)
