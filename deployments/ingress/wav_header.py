"""A wav file's promises against its bytes: libsndfile quietly mends a wrong length, a caller should hear of it."""

import struct

from chroma_models.errors import InvalidAudio

STREAMED = 0x7FFF_F000  # a writer to a pipe cannot know the length and writes about 2**31 or 2**32 - 1


def check_wav(data: bytes) -> None:
    """Raises InvalidAudio where the rate is 0, or the samples are missing, empty or fewer than the header says."""
    if data[8:12] != b"WAVE":
        raise InvalidAudio("The audio is not a wav file: it says RIFF, but not WAVE.")
    order = ">" if data.startswith(b"RIFX") else "<"
    at, rate_known = 12, False
    while at + 8 <= len(data):
        name, size = struct.unpack(f"{order}4sI", data[at : at + 8])
        at += 8
        if name == b"fmt " and len(data) >= at + 8:
            (rate,) = struct.unpack(f"{order}I", data[at + 4 : at + 8])
            if rate == 0:
                raise InvalidAudio("The wav header says 0 Hz; write the sample rate of the recording into it.")
            rate_known = True
        if name == b"data":
            if not rate_known:
                raise InvalidAudio("The wav file has no format before its samples; its header is damaged.")
            if size == 0 or at == len(data):
                raise InvalidAudio("The wav file holds no samples; send a recording with at least one.")
            if size < STREAMED and size > len(data) - at:
                raise InvalidAudio(
                    f"The wav file is truncated: its header promises {size} bytes of samples, {len(data) - at} came."
                )
            return
        at += size + size % 2
    raise InvalidAudio("The wav file is truncated: it ends before its samples begin.")
