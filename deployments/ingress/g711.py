"""G.711, the telephone's companding: 8 kHz, one byte a sample. Source: ITU-T G.711, tables 1 and 2."""

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["mulaw", "alaw"]


def expand(data: bytes, law: Law) -> NDArray[np.int16]:
    """Bytes -> int16 [n]."""
    return _expanded(law)[np.frombuffer(data, np.uint8)]


def compress(samples: NDArray[np.int16], law: Law) -> bytes:
    """int16 [n] -> the byte whose expansion is nearest, for every sample."""
    return _compressed(law)[samples.view(np.uint16)].tobytes()


@cache
def _expanded(law: Law) -> NDArray[np.int16]:
    """int16 [256]."""
    code = np.arange(256)
    if law == "mulaw":
        code = ~code & 0xFF
        size = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
        return np.where(code & 0x80, -size, size).astype(np.int16)
    code = code ^ 0x55
    step, segment = (code & 0x0F) << 4, code >> 4 & 7
    size = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)


@cache
def _compressed(law: Law) -> NDArray[np.uint8]:
    """uint8 [65536], by the sample as uint16."""
    table = _expanded(law).astype(np.int32)
    order = np.argsort(table, kind="stable")
    levels = table[order]
    between = (levels[1:] + levels[:-1]) / 2
    samples = np.arange(65_536, dtype=np.uint16).view(np.int16)
    return order[np.searchsorted(between, samples)].astype(np.uint8)
