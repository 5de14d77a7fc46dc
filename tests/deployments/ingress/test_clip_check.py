"""Which recordings are taken, and what is said about the others."""

import io
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chroma_models.errors import InvalidAudio, InvalidRequest, InvalidVoice, TooLarge
from deployments.ingress.clip_check import ClipCheck
from deployments.ingress.config import AudioLimits
from deployments.ingress.recording import form_of, kept
from tests.conftest import ROOT
from tests.deployments.ingress.scripted import file_of

LIMITS = AudioLimits()
RATE_HZ = 24_000
Samples = NDArray[Any]


def speech(seconds: float, rate_hz: int = RATE_HZ, seed: int = 0, level: float = 0.1) -> Samples:
    """Noise that comes and goes four times a second, as syllables do."""
    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * rng.standard_normal(len(at)) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * at))).clip(-0.9, 0.9)


def in_container(samples: Samples, form: str, codec: str, rate_hz: int = 48_000) -> bytes:
    """As a browser or a telephone records it."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        whole = (samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.rate = rate_hz
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate_hz, frame_size=960)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return out.getvalue()


def adts(samples: Samples, layout: str, rate_hz: int = 48_000) -> bytes:
    """Bare AAC of so many channels, all alike; such files can be put one after another."""
    out = io.BytesIO()
    with av.open(out, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate_hz, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        for start in range(0, len(samples) - 1024, 1024):
            piece = np.repeat(samples[None, start : start + 1024].astype(np.float32), channels, axis=0)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.rate = rate_hz
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def take(data: bytes) -> tuple[Samples, float]:
    flac, audio_s = kept(data, LIMITS, "audio_sample")
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    assert rate == RATE_HZ
    return samples, audio_s


def test_a_good_clip_is_kept_bit_for_bit() -> None:
    samples = (speech(5) * 32768).astype(np.int16)
    for form, coding in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT")):
        written = samples / 32768 if coding == "FLOAT" else samples
        heard, audio_s = take(file_of(written, RATE_HZ, form, coding))
        assert np.array_equal(heard, samples)
        assert audio_s == 5.0


def test_the_built_in_voice_would_be_taken() -> None:
    clip = (ROOT / "deployments" / "ingress" / "voices" / "default.flac").read_bytes()
    assert 3 <= take(clip)[1] <= 30


@pytest.mark.parametrize(
    ("form", "codec", "rate_hz"),
    [
        ("webm", "libopus", 48_000),
        ("ogg", "libopus", 48_000),
        ("ogg", "vorbis", 44_100),
        ("mp4", "aac", 44_100),
        ("adts", "aac", 48_000),
        ("mp3", "libmp3lame", 44_100),
    ],
)
def test_what_browsers_and_phones_record_is_taken(form: str, codec: str, rate_hz: int) -> None:
    at = np.arange(5 * rate_hz) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * 440 * at)
    vorbis = codec == "vorbis"  # which FFmpeg writes badly
    heard, audio_s = take(file_of(tone, rate_hz, "OGG", codec) if vorbis else in_container(tone, form, codec, rate_hz))
    assert audio_s == pytest.approx(5, abs=0.15)  # lossy codecs pad
    spectrum = np.abs(np.fft.rfft(heard[RATE_HZ : 3 * RATE_HZ].astype(float)))
    assert np.argmax(spectrum) / 2 == pytest.approx(440, abs=1)


def clipped() -> bytes:
    return file_of(np.clip(speech(5, level=0.8) * 3, -1, 1), RATE_HZ)


def stereo(left: Samples, right: Samples) -> bytes:
    return file_of(np.stack([left, right], axis=1), RATE_HZ)


BAD = {
    "too short": (lambda: file_of(speech(2.9), RATE_HZ), r"lasts 2\.9 s; send 3 to 30 s of one speaker"),
    "too long": (lambda: file_of(speech(30.1), RATE_HZ), r"is longer than 30 s; cut it to 3 to 30 s"),
    "silent": (lambda: file_of(np.zeros(5 * RATE_HZ), RATE_HZ), r"holds 0\.0 s of sound, .* -50 dBFS; at least 2 s"),
    "hiss": (lambda: file_of(speech(5, level=0.001), RATE_HZ), r"holds 0\.0 s of sound"),
    "hardly a word": (
        lambda: file_of(np.concatenate([speech(1), np.zeros(4 * RATE_HZ)]), RATE_HZ),
        r"holds (1\.0|0\.9) s of sound.*speak louder, or check the microphone",
    ),
    "clipped": (clipped, r"is clipped in \d+\.\d% of its samples; record it again at a lower level"),
    "telephone": (lambda: file_of(speech(5, 8_000), 8_000), r"was recorded at 8000 Hz; record at 16000 Hz or more"),
    "out of phase": (lambda: stereo(speech(5), -speech(5)), r"two channels that cancel each other"),
    "two speakers": (lambda: stereo(speech(5), speech(5, seed=1)), r"two channels that hold different sounds"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_clip_no_voice_can_be_made_of_is_told_why(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(InvalidVoice, match=words) as told:
        take(make())
    assert told.value.param == "audio_sample"


UNREADABLE = {
    "six channels": (lambda: file_of(np.zeros((5 * RATE_HZ, 6)), RATE_HZ), r"6 channels; send mono or stereo"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), r"is no recording that is read here; send wav"),
    "nothing": (lambda: b"", r"is no recording that is read here"),
    "cut wav": (lambda: file_of(speech(5), RATE_HZ)[:50_000], r"truncated"),
    "no webm": (lambda: b"\x1aE\xdf\xa3" + bytes(1000), r"webm file cannot be read"),
    "no ogg": (lambda: b"OggS" + bytes(1000), r"ogg file cannot be read"),
    "no mp4": (lambda: bytes(4) + b"ftypisom" + bytes(1000), r"mp4 file cannot be read"),
    "a film without sound": (lambda: silent_film(), r"mp4 file holds no audio"),
}


def silent_film() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_told_so(name: str) -> None:
    make, words = UNREADABLE[name]
    with pytest.raises((InvalidAudio, TooLarge), match=words) as told:
        take(make())
    assert told.value.param == "audio_sample"


def test_a_channel_that_is_silent_does_no_harm() -> None:
    heard, _ = take(stereo(speech(5), np.zeros(5 * RATE_HZ)))
    assert np.corrcoef(heard, speech(5))[0, 1] > 0.999


def test_a_loud_clip_that_touches_full_scale_is_not_clipped() -> None:
    samples = speech(5)
    take(file_of(samples / np.abs(samples).max(), RATE_HZ))


@settings(max_examples=40)
@given(
    cuts=st.lists(st.integers(1, 5 * 16_000 - 1), max_size=8),
    channels=st.sampled_from([1, 2]),
    gain=st.sampled_from([0.0, 0.001, 0.1, 3.0, 30.0]),
)
def test_the_verdict_does_not_depend_on_how_a_clip_is_cut_into_blocks(
    cuts: list[int], channels: int, gain: float
) -> None:
    block = (speech(5, 16_000)[:, None] * np.ones(channels) * gain).clip(-1, 1).astype(np.float32)

    def verdict(at: list[int]) -> str | None:
        check = ClipCheck(LIMITS, "x")
        try:
            for piece in np.split(block, at):
                check.hear(piece, 16_000)
            check.verdict()
        except InvalidVoice as error:
            return error.message
        return None

    assert verdict(sorted(cuts)) == verdict([])


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_uploaded_is_taken_or_told(data: st.DataObject) -> None:
    """Files of every kind with a few bytes changed, cut, or put in: an answer of ours, never an accident."""
    whole = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(whole), 400)) | st.integers(0, len(whole)))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=8))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole))) :]
    try:
        samples, _ = take(bytes(whole))
    except InvalidRequest as error:
        assert error.message.endswith(".")
        assert error.param == "audio_sample"
    else:
        assert len(samples)


FILES = [
    file_of(speech(4), RATE_HZ),
    file_of(speech(4), RATE_HZ, "FLAC"),
    in_container(speech(4, 48_000), "webm", "libopus"),
    in_container(speech(4, 48_000), "ogg", "libopus"),
    in_container(speech(4, 44_100), "mp4", "aac", 44_100),
    in_container(speech(4, 44_100), "adts", "aac", 44_100),
    in_container(speech(4, 44_100), "mp3", "libmp3lame", 44_100),
]


def test_a_file_is_known_by_its_first_bytes() -> None:
    assert [form_of(file) for file in FILES] == ["wav", "flac", "webm", "ogg", "mp4", "aac", "mp3"]


def test_a_layout_or_rate_that_changes_on_the_way_is_brought_back_to_the_first() -> None:
    samples = speech(3, 48_000)
    for other in (adts(samples, "stereo"), adts(samples[::2], "mono", 24_000), adts(samples[::2], "stereo", 24_000)):
        _, audio_s = take(adts(samples, "mono") + other)
        assert audio_s == pytest.approx(6, abs=0.3)


def test_channels_that_come_on_the_way_are_not_read() -> None:
    """With more than eight of them, memory was read past its end, and the process died."""
    samples = speech(3, 48_000)
    with pytest.raises(InvalidAudio):
        take(adts(samples, "mono") + adts(samples, "5.1"))
