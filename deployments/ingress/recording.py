"""An uploaded recording, to what is kept of it."""

from chroma_models.errors import InvalidAudio, InvalidRequest
from chroma_models.types import SAMPLE_RATE_HZ
from deployments.ingress.audio_in import UploadFormat, decode
from deployments.ingress.audio_out import encode
from deployments.ingress.clip_check import ClipCheck
from deployments.ingress.config import AudioLimits


def kept(data: bytes, limits: AudioLimits, param: str) -> tuple[bytes, float]:
    """The recording as FLAC, 24 kHz mono of 16 bits, and its length in seconds. Meant for a worker thread.

    What the file is shows in its first bytes, whatever its name. Raises InvalidVoice where no voice can be made of it,
    InvalidAudio or TooLarge where it cannot be read.
    """
    check = ClipCheck(limits, param)
    try:
        samples = decode(data, form_of(data), SAMPLE_RATE_HZ, limits, check.hear)
    except InvalidRequest as error:
        raise type(error)(error.message, param) from None
    check.verdict()
    return encode(samples.astype("<f4").tobytes(), "flac"), check.audio_s


def form_of(data: bytes) -> UploadFormat:
    """Raises InvalidAudio for what is no recording."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "webm"
    if data[4:8] == b"ftyp":
        return "mp4"
    if data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xF6 == 0xF0:  # ADTS: layer bits 0
        return "aac"
    if data[:3] == b"ID3" or (data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE0 == 0xE0):
        return "mp3"
    raise InvalidAudio("The file is no recording that is read here; send wav, flac, mp3, ogg, webm, mp4 or aac.")
