"""Clips as clients send them, to samples as the models hear them.

Nothing is decoded before its header is believed, nothing is held twice at its own rate: blocks go through downmix and
resampling one after the other, so memory follows the length of the result. Meant for a worker thread.
"""

import base64
import binascii
import io
from collections.abc import Callable, Iterator
from typing import Literal, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from chroma_models.errors import InvalidAudio, TooLarge
from chroma_models.types import LISTEN_RATE_HZ, SAMPLE_RATE_HZ, Audio
from deployments.ingress.audio_out import to_int16
from deployments.ingress.config import AudioLimits
from deployments.ingress.container import ContainerFormat, container_blocks
from deployments.ingress.wav_header import check_wav

Samples = NDArray[np.float32]
InputFormat = Literal["wav", "mp3", "flac", "pcm16"]
UploadFormat = InputFormat | ContainerFormat
Hear = Callable[[Samples, int], None]  # a block float32 [n, channels] as decoded, and its rate

BLOCK_SAMPLES = 1 << 16
BASE64_BLOCK = 1 << 18  # characters, a multiple of 4; decoding holds the interpreter, so it is done in pieces
LOUDEST = 16.0  # float files may pass 1.0 a little; beyond this they are not scaled to -1..1
MP3_SLACK = 4 * 1152  # an mp3 header counts the encoder's padding, a decoder may drop it

MAGIC: dict[str, tuple[bytes, ...]] = {"wav": (b"RIFF", b"RIFX", b"RF64"), "flac": (b"fLaC",), "mp3": (b"ID3", b"\xff")}
CONTAINERS = {"wav": ("WAV", "WAVEX", "RF64"), "flac": ("FLAC",), "mp3": ("MP3",)}
WAV_CODINGS = {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


def decode_base64(text: str) -> bytes:
    """Strict base64, padding included; a data: URL's prefix is accepted. Raises InvalidAudio."""
    if text.startswith("data:"):
        text = text[text.find(",") + 1 :]
    pieces = []
    try:
        for start in range(0, len(text), BASE64_BLOCK):
            piece = text[start : start + BASE64_BLOCK]
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
            if piece.endswith("=") and start + BASE64_BLOCK < len(text):
                raise InvalidAudio("The audio data has base64 padding in its middle; send one base64 string.")
    except ValueError:  # binascii.Error, or a character that is not ASCII
        raise InvalidAudio("The audio data is not base64; encode the file's bytes as standard base64.") from None
    return b"".join(pieces)


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def question(data: bytes, form: InputFormat, limits: AudioLimits) -> Audio:
    """A clip as the Reasoner hears it: mono at 16 kHz, where mono input at that rate passes bit for bit.

    int16, but for a clip that comes at 16 kHz with finer steps (float or 24-bit): that one stays float32.
    """
    samples = decode(data, form, LISTEN_RATE_HZ, limits)
    steps = to_int16(samples)
    if source_rate_hz(data, form) == LISTEN_RATE_HZ and not np.array_equal(steps, samples * 32768.0):
        return Audio(samples.astype("<f4").tobytes(), "float32")
    return Audio(steps.tobytes())


def source_rate_hz(data: bytes, form: InputFormat) -> int:
    """The rate a clip was recorded at, for one that decode() took."""
    return SAMPLE_RATE_HZ if form == "pcm16" else int(soundfile.info(io.BytesIO(data)).samplerate)


def voice_pcm(data: bytes, form: InputFormat, limits: AudioLimits) -> bytes:
    """A reference clip as the Codec encodes it: float32 mono at 24 kHz. 24 kHz input keeps its samples exactly."""
    return decode(data, form, SAMPLE_RATE_HZ, limits).astype("<f4").tobytes()


def decode(data: bytes, form: UploadFormat, rate_hz: int, limits: AudioLimits, hear: Hear | None = None) -> Samples:
    """Samples float32 [n] in about -1..1: channels averaged, resampled to rate_hz.

    pcm16 is headerless int16 little-endian mono at 24 kHz, as OpenAI's is.
    hear gets every block first, and may raise. Raises InvalidAudio, or TooLarge where the clip is longer than the
    limits allow.
    """
    if not data:
        raise InvalidAudio("The audio is empty; send a recording with at least one sample.")
    if form == "pcm16":
        source, blocks = SAMPLE_RATE_HZ, _pcm16_blocks(data, limits)
    elif form in ("ogg", "webm", "mp4", "aac"):
        source, blocks = container_blocks(data, form, limits)
    else:
        source, blocks = _file_blocks(data, form, limits)
    resampler = soxr.ResampleStream(source, rate_hz, 1, dtype="float32") if source != rate_hz else None
    pieces: list[Samples] = []
    decoded = 0
    for block in blocks:
        decoded += len(block)
        _check_length(decoded, source, block.shape[1], limits)  # a container's header does not say, or lies
        if not np.isfinite(block).all():
            raise InvalidAudio("The audio holds samples that are not numbers (NaN or infinity); export it again.")
        if float(np.abs(block).max(initial=0.0)) > LOUDEST:
            raise InvalidAudio("The audio's float samples are far outside -1..1; scale them and export it again.")
        if hear:
            hear(block, source)
        mono = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
        pieces.append(resampler.resample_chunk(mono) if resampler else mono)
    if not pieces:
        raise InvalidAudio("The audio is empty; send a recording with at least one sample.")
    if resampler:
        pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(pieces)
    if len(samples) < limits.min_clip_s * rate_hz:
        raise InvalidAudio(f"The audio is shorter than {limits.min_clip_s:g} s; send a longer recording.")
    return samples


def _check_length(frames: int, rate_hz: int, channels: int, limits: AudioLimits) -> None:
    if frames > limits.max_clip_s * rate_hz:
        raise TooLarge(
            f"The audio lasts {frames / rate_hz:.0f} s; a clip may last {limits.max_clip_s:.0f} s. Send a shorter one."
        )
    if frames * channels > limits.max_clip_samples:
        raise TooLarge(
            f"The audio holds {frames * channels} samples; a clip may hold {limits.max_clip_samples}. "
            "Send it mono, at a lower sample rate, or shorter."
        )


def _pcm16_blocks(data: bytes, limits: AudioLimits) -> Iterator[Samples]:
    if len(data) % 2:
        raise InvalidAudio("pcm16 audio has two bytes per sample; this has an odd number of bytes.")
    _check_length(len(data) // 2, SAMPLE_RATE_HZ, 1, limits)
    return iter([np.frombuffer(data, "<i2").astype(np.float32)[:, None] / np.float32(32768.0)])


def _file_blocks(data: bytes, form: str, limits: AudioLimits) -> tuple[int, Iterator[Samples]]:
    """Rate, and blocks float32 [n, channels] that end with an error where the file ends before its header says."""
    if not data.startswith(MAGIC[form]):
        raise InvalidAudio(f"The audio is not a {form} file; send {form} bytes or name the right format.")
    if form == "wav":
        check_wav(data)
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError:
        raise InvalidAudio(f"The {form} file cannot be read; its header is damaged or incomplete.") from None
    if file.format not in CONTAINERS[form] or (form == "wav" and file.subtype not in WAV_CODINGS):
        raise InvalidAudio(f"The audio is {file.format} {file.subtype}; send {form} in a plain coding (PCM for wav).")
    rate, channels, frames = cast(int, file.samplerate), cast(int, file.channels), cast(int, file.frames)
    if not limits.min_rate_hz <= rate <= limits.max_rate_hz:
        raise InvalidAudio(
            f"The audio's header says {rate} Hz; sample rates from {limits.min_rate_hz} to {limits.max_rate_hz} Hz "
            "are read. Mend the header or resample."
        )
    if channels > limits.max_channels:
        raise InvalidAudio(f"The audio has {channels} channels; send mono or stereo.")
    if frames <= 0:
        raise InvalidAudio("The audio is empty; send a recording with at least one sample.")
    _check_length(frames, rate, channels, limits)
    return rate, _decoded_blocks(file, form)


def _decoded_blocks(file: soundfile.SoundFile, form: str) -> Iterator[Samples]:
    truncated = InvalidAudio(f"The {form} file is truncated or damaged: it ends before its header says it does.")
    decoded = 0
    with file:
        while True:
            try:
                block = cast(Samples, file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True))
            except soundfile.LibsndfileError:
                raise truncated from None
            if not len(block):
                break
            decoded += len(block)
            yield block
        if decoded + (MP3_SLACK if form == "mp3" else 0) < file.frames:
            raise truncated
