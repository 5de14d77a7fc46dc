"""A Speaker that follows a script, in the place of the cluster behind the ingress."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable
from functools import cache
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from chroma_models.types import (
    FRAME_SAMPLES,
    Admitted,
    AudioChunk,
    Finished,
    FinishReason,
    Frame,
    Progress,
    TextStep,
    Turn,
    Usage,
)

FINGERPRINT = "scripted"
WORDS = ("It", " is", " sunny", " by", " the", " sea", ".")
Script = Callable[[Turn], AsyncGenerator[Any, None]]


def tone(samples: int, rate_hz: int, hz: float = 440.0) -> NDArray[np.float32]:
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)).astype(np.float32)


def file_of(samples: NDArray[Any], rate_hz: int, form: str = "WAV", coding: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format=form, subtype=coding)
    return out.getvalue()


@cache
def spoken_pcm(frames: int) -> NDArray[np.float32]:
    """What a scripted reply of so many frames sounds like."""
    return tone(frames * FRAME_SAMPLES, 24_000, 330.0)


def chunk(first: int, count: int, total: int) -> AudioChunk:
    """Frames first.. of a reply of total frames; every second frame carries a word."""
    frames = []
    for i in range(first, first + count):
        word = WORDS[i // 2 % len(WORDS)]
        step = TextStep(i // 2, 7, b"", word) if i % 2 == 0 else None
        frames.append(Frame(i, np.full(8, i, "<i2").tobytes(), step))
    pcm = spoken_pcm(total)[first * FRAME_SAMPLES : (first + count) * FRAME_SAMPLES]
    return AudioChunk(tuple(frames), pcm.astype("<f4").tobytes())


def finished(frames: int, reason: FinishReason = "end_of_speech") -> Finished:
    usage = Usage(prompt_tokens=100, cached_tokens=16, text_tokens=(frames + 1) // 2, frames=frames)
    return Finished(reason, usage, {"backbone.prefill": 0.01})


def reply(frames: int = 10, group: int = 4, pause_s: float = 0.0, reason: FinishReason = "end_of_speech") -> Script:
    async def script(turn: Turn) -> AsyncGenerator[Any, None]:
        yield Admitted(FINGERPRINT)
        for first in range(0, frames, group):
            await asyncio.sleep(pause_s)
            yield chunk(first, min(group, frames - first), frames)
        yield finished(frames, reason)

    return script


def items(*script: Any) -> Script:
    """Yields what it is given; raises what is an exception; sleeps for what is a number."""

    async def run(turn: Turn) -> AsyncGenerator[Any, None]:
        for item in script:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, int | float):
                await asyncio.sleep(item)
            else:
                yield item

    return run


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Waits for what only shows from outside; fails when it never comes."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():  # what is waited for raises no event
        assert asyncio.get_running_loop().time() < deadline, "what the test waits for did not happen"
        await asyncio.sleep(0.005)


class Scripted:
    """Follows `script` for every turn, or the one `by_word` has for the first word of a turn's last message."""

    def __init__(self) -> None:
        self.script: Script = reply()
        self.by_word: dict[str, Script] = {}
        self.turns: list[Turn] = []
        self.open = 0
        self.clips: list[bytes] = []
        self.encode_s = 0.0

    def _script_of(self, turn: Turn) -> Script:
        said = next((getattr(part, "text", "") for part in reversed(turn.messages[-1].parts)), "")
        return self.by_word.get(said.split(" ")[0], self.script)

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        self.turns.append(turn)
        self.open += 1
        script = self._script_of(turn)(turn)
        try:
            async for item in script:
                yield item
        finally:
            await script.aclose()
            self.open -= 1

    async def encode_voice(self, pcm: bytes) -> bytes:
        self.clips.append(pcm)
        await asyncio.sleep(self.encode_s)
        frames = -(-len(pcm) // 4 // FRAME_SAMPLES)
        return np.arange(8 * frames, dtype="<i2").tobytes()

    async def all_closed(self) -> None:
        """Returns when every stream that was opened has been closed."""
        await until(lambda: not self.open)
