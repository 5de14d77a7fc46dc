"""Clips in containers that browsers and phones record: Ogg, WebM, MP4, and bare AAC."""

import io
from collections.abc import Iterator, Sequence
from typing import Literal, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
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
    context: AudioCodecContext | None = stream.codec_context  # None where no decoder is known
    if context is None:
        raise broken
    coding, rate, channels = context.name, context.sample_rate, context.channels
    if coding not in CODECS:
        raise InvalidAudio(f"The {form} file's audio is coded as {coding}; send Opus, Vorbis, AAC, FLAC or MP3.")
    if not limits.min_rate_hz <= rate <= limits.max_rate_hz:
        raise InvalidAudio(f"The {form} file says {rate} Hz; send {limits.min_rate_hz} to {limits.max_rate_hz} Hz.")
    if not 1 <= channels <= limits.max_channels:
        raise InvalidAudio(f"The audio has {channels} channels; send mono or stereo.")
    return rate, _blocks(container, stream, limits.max_channels, broken)


def _blocks(
    container: InputContainer, stream: AudioStream, most_channels: int, broken: InvalidAudio
) -> Iterator[NDArray[np.float32]]:
    """A rate or layout that changes on the way is brought back to the first.

    A frame's channels are counted before its samples are touched: PyAV reads beyond the memory of one with many.
    """
    context = stream.codec_context
    layout, rate = context.layout, context.sample_rate
    resampler, form = av.AudioResampler("fltp", layout, rate), None
    with container:
        try:
            for frame in container.decode(stream):
                if not 1 <= frame.layout.nb_channels <= most_channels:
                    raise broken
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    yield from _arrays(resampler.resample(None))
                    resampler = av.AudioResampler("fltp", layout, rate)  # one takes one kind of frame
                yield from _arrays(resampler.resample(frame))
            yield from _arrays(resampler.resample(None))
        except (av.FFmpegError, ValueError):
            raise broken from None


def _arrays(frames: Sequence[AudioFrame | None]) -> Iterator[NDArray[np.float32]]:
    """None is what flushing gives where nothing had to be changed."""
    for frame in frames:
        if frame is not None:
            yield np.ascontiguousarray(frame.to_ndarray().T, dtype=np.float32)
