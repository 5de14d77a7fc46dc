"""Statements inside audio files: their comment, which every format but raw samples has and conversions keep.

Meant for a worker thread.
"""

import io
import re
from hashlib import sha256
from typing import Any, cast

import av
import numpy as np
import soundfile
from av.container import InputContainer

from chroma_models.errors import InvalidAudio
from chroma_models.types import SAMPLE_RATE_HZ
from deployments.ingress.audio_out import OutputFormat, encode, to_pcm16
from deployments.ingress.provenance.statement import Attest, AudioHash

Json = dict[str, Any]

TOKEN = re.compile(r"chroma-provenance:([\w-]+\.[\w-]+\.[\w-]+)")
PACKED: dict[OutputFormat, str] = {"mp3": "mp3", "opus": "ogg"}  # lossy, to FFmpeg's name of the container
KINDS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg"}  # by how a file begins; mp3 has no sure sign


def comment_of(statement: Json) -> str:
    """For people first, then for `chroma verify`."""
    return f"Synthetic speech, made by the model {statement['model']}. chroma-provenance:{statement['jws']}"


def sealed(pcm: bytes, form: OutputFormat, attest: Attest) -> tuple[bytes, Json]:
    """A whole reply, float32 mono at 24 kHz, as a file, and what is said of it; inside the file too but for pcm16
    and for a reply without a sample."""
    if not pcm:
        return encode(pcm, form), attest(None)
    if form in PACKED:
        file = encode(pcm, form)
        statement = attest(AudioHash(packets_sha256(file, PACKED[form]), form, SAMPLE_RATE_HZ))
        return _commented(file, form, comment_of(statement)), statement
    samples = to_pcm16(pcm)
    statement = attest(AudioHash(sha256(samples).hexdigest(), "pcm16", SAMPLE_RATE_HZ))
    return (samples if form == "pcm16" else encode(pcm, form, comment_of(statement))), statement


def packets_sha256(file: bytes, container: str) -> str:
    """Of a lossy file's coded audio: tags, headers and pages are not in it."""
    digest = sha256()
    with _opened(file, container) as source:
        for packet in source.demux(source.streams.audio[0]):
            digest.update(bytes(packet))
    return digest.hexdigest()


def samples_sha256(file: bytes) -> str:
    """Of a file's samples as int16, whatever holds them."""
    samples, _ = soundfile.read(io.BytesIO(file), dtype="int16")
    return sha256(np.ascontiguousarray(samples, "<i2").tobytes()).hexdigest()


def token_in(file: bytes) -> str | None:
    """The statement that a file carries, anywhere among its tags. Raises InvalidAudio."""
    with _opened(file, kind_of(file)) as source:
        for tags in (source.metadata, source.streams.audio[0].metadata):
            for value in tags.values():
                if found := TOKEN.search(value):
                    return found[1]
    return None


def unchanged(file: bytes, audio: AudioHash) -> bool:
    """Whether a file's audio is what was hashed. Raises InvalidAudio."""
    try:
        if audio.of in PACKED:
            return packets_sha256(file, kind_of(file)) == audio.sha256
        return samples_sha256(file) == audio.sha256
    except (soundfile.LibsndfileError, av.FFmpegError):
        raise InvalidAudio("The file's audio cannot be read; it is damaged or incomplete.") from None


def kind_of(file: bytes) -> str:
    return KINDS.get(file[:4], "mp3")


def _opened(file: bytes, container: str) -> InputContainer:
    """The demuxer is named, never guessed: some of FFmpeg's open other files. Raises InvalidAudio."""
    try:
        source = cast(InputContainer, av.open(io.BytesIO(file), format=container))
    except (av.FFmpegError, ValueError):
        raise InvalidAudio("The file is no wav, flac, ogg or mp3.") from None
    if not source.streams.audio:
        source.close()
        raise InvalidAudio("The file holds no audio.")
    return source


def _commented(file: bytes, form: OutputFormat, comment: str) -> bytes:
    """The same packets under a comment: nothing is encoded again."""
    return _id3(comment) + file if form == "mp3" else _opus_commented(file, comment)


def _id3(comment: str) -> bytes:
    """A tag of ID3v2.4 with one COMM frame, to stand before a file: FFmpeg would also write the frame anew in which
    LAME says how much silence to cut, and forgets it at times."""
    text = b"\x03eng\0" + comment.encode()
    frame = b"COMM" + _syncsafe(len(text)) + bytes(2) + text
    return b"ID3\x04\0\0" + _syncsafe(len(frame)) + frame


def _syncsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _opus_commented(file: bytes, comment: str) -> bytes:
    """Through FFmpeg, since every page of Ogg has a checksum."""
    out = io.BytesIO()
    with _opened(file, "ogg") as source, av.open(out, "w", format="ogg") as sink:
        stream = sink.add_stream_from_template(source.streams.audio[0])
        stream.metadata["comment"] = comment
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    return out.getvalue()
