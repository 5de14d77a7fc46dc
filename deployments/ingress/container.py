"""Clips in containers that browsers and phones record: Ogg, WebM, MP4, and bare AAC."""

import io
from collections.abc import Iterator
from typing import Literal, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from chroma_models.errors import InvalidAudio
from deployments.ingress.config import AudioLimits

ContainerFormat = Literal["ogg", "webm", "mp4", "aac"]

DEMUXERS: dict[ContainerFormat, str] = {"ogg": "ogg", "webm": "matroska", "mp4": "mp4", "aac": "aac"}
CODECS = ("opus", "vorbis", "aac", "flac", "mp3", "mp3float")


def container_blocks(
    data: bytes, form: ContainerFormat, limits: AudioLimits
) -> tuple[int, Iterator[NDArray[np.float32]]]:
    """Rate, and blocks float32 [n, channels]. The demuxer is named, never guessed: some of FFmpeg's open other files.

    The blocks raise InvalidAudio where the file is damaged; their number is the caller's to bound.
    """
    broken = InvalidAudio(f"The {form} file cannot be read; it is damaged or incomplete.")
    try:
        container = cast(InputContainer, av.open(io.BytesIO(data), format=DEMUXERS[form]))
        if not container.streams.audio:
            raise InvalidAudio(f"The {form} file holds no audio.")
        stream = container.streams.audio[0]
    except (av.FFmpegError, ValueError):
        raise broken from None
    coding, rate, channels = stream.codec_context.name, stream.codec_context.sample_rate, stream.codec_context.channels
    if coding not in CODECS:
        raise InvalidAudio(f"The {form} file's audio is coded as {coding}; send Opus, Vorbis, AAC, FLAC or MP3.")
    if not limits.min_rate_hz <= rate <= limits.max_rate_hz:
        raise InvalidAudio(f"The {form} file says {rate} Hz; send {limits.min_rate_hz} to {limits.max_rate_hz} Hz.")
    if not 1 <= channels <= limits.max_channels:
        raise InvalidAudio(f"The audio has {channels} channels; send mono or stereo.")
    return rate, _blocks(container, stream, broken)


def _blocks(container: InputContainer, stream: AudioStream, broken: InvalidAudio) -> Iterator[NDArray[np.float32]]:
    """A rate or layout that changes on the way is brought back to the first."""
    context = stream.codec_context
    resampler = av.AudioResampler("fltp", context.layout, context.sample_rate)
    with container:
        try:
            for frame in container.decode(stream):
                yield from _arrays(resampler.resample(frame))
            yield from _arrays(resampler.resample(None))
        except (av.FFmpegError, ValueError):
            raise broken from None


def _arrays(frames: list[AudioFrame]) -> Iterator[NDArray[np.float32]]:
    for frame in frames:
        yield np.ascontiguousarray(frame.to_ndarray().T, dtype=np.float32)
