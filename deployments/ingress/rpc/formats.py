"""Audio as the contract names it: live formats, and whole clips."""

import struct

from chroma_models.errors import InvalidAudio
from deployments.ingress.audio_in import InputFormat
from deployments.ingress.live_audio import ALAW_8K, MULAW_8K, PCM_24K, AudioFormat, Encoding
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb

LIVE: dict[int, Encoding] = {
    pb.AUDIO_ENCODING_UNSPECIFIED: "pcm16",
    pb.AUDIO_ENCODING_LINEAR16: "pcm16",
    pb.AUDIO_ENCODING_MULAW: "mulaw",
    pb.AUDIO_ENCODING_ALAW: "alaw",
}
FILES: dict[int, InputFormat] = {
    pb.AUDIO_ENCODING_WAV: "wav",
    pb.AUDIO_ENCODING_FLAC: "flac",
    pb.AUDIO_ENCODING_MP3: "mp3",
}
NAMES = {encoding: number for number, encoding in LIVE.items()}  # the later of two numbers: LINEAR16
USUAL_HZ = {form.encoding: form.rate_hz for form in (PCM_24K, MULAW_8K, ALAW_8K)}
WAV_TAGS: dict[Encoding, int] = {"pcm16": 1, "alaw": 6, "mulaw": 7}
LEAST_HZ, MOST_HZ = 8_000, 48_000


def live_format(config: pb.AudioConfig, field: str) -> AudioFormat:
    """Headerless audio, as it comes and goes in pieces. Raises InvalidAudio."""
    if config.encoding in FILES:
        raise InvalidAudio("A file cannot be sent in pieces; use LINEAR16, MULAW or ALAW.", f"{field}.encoding")
    if config.encoding not in LIVE:
        raise InvalidAudio(f"Unknown encoding {config.encoding}; use LINEAR16, MULAW or ALAW.", f"{field}.encoding")
    encoding = LIVE[config.encoding]
    rate_hz = config.sample_rate_hertz or USUAL_HZ[encoding]
    if encoding != "pcm16" and rate_hz != USUAL_HZ[encoding]:
        raise InvalidAudio("G.711 has 8000 Hz here.", f"{field}.sample_rate_hertz")
    if not LEAST_HZ <= rate_hz <= MOST_HZ:
        raise InvalidAudio(
            f"A rate of {rate_hz} Hz is not read; use {LEAST_HZ} to {MOST_HZ}.", f"{field}.sample_rate_hertz"
        )
    return AudioFormat(encoding, rate_hz)


def told_format(form: AudioFormat) -> pb.AudioConfig:
    return pb.AudioConfig(encoding=NAMES[form.encoding], sample_rate_hertz=form.rate_hz)  # type: ignore[arg-type]


def clip_file(clip: pb.AudioClip, field: str) -> tuple[bytes, InputFormat]:
    """A clip as a file; headerless samples get a header. Raises InvalidAudio."""
    if clip.format.encoding in FILES:
        return clip.content, FILES[clip.format.encoding]
    form = live_format(clip.format, f"{field}.format")
    if len(clip.content) % form.sample_bytes:
        raise InvalidAudio(
            f"{len(clip.content)} bytes are no whole number of 16-bit samples; send whole samples.", f"{field}.content"
        )
    return _wav_header(form, len(clip.content)) + clip.content, "wav"


def _wav_header(form: AudioFormat, size: int) -> bytes:
    width = form.sample_bytes
    described = struct.pack("<HHIIHH", WAV_TAGS[form.encoding], 1, form.rate_hz, form.bytes_per_s, width, 8 * width)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16)
        + described
        + struct.pack("<4sI", b"data", size)
    )
