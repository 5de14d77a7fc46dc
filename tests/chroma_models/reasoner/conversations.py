"""Conversations for the Reasoner's tests, and how to listen to a reply."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from chroma_models.config import ReasonerConfig, TorchConfig
from chroma_models.reasoner import ReasonerEngine
from chroma_models.reasoner.mel import Samples
from chroma_models.types import (
    LISTEN_RATE_HZ,
    Admitted,
    Audio,
    EncodedVoice,
    Finished,
    Limits,
    Message,
    Sampling,
    Text,
    TextStep,
    Turn,
)

FP32 = TorchConfig(device="cpu", dtype="float32")
SMALL = ReasonerConfig(slots=8, max_model_len=1024, max_audio_parts=4, kv_cache_bytes=64 << 20)


def speech(seconds: float, seed: int, loudness: float = 0.3) -> Samples:
    """Something with a pitch that moves, and breath."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * LISTEN_RATE_HZ)) / LISTEN_RATE_HZ
    tone = np.sin(2 * np.pi * (150 + 40 * seed) * t + 8 * np.sin(2 * np.pi * 3 * t))
    return (loudness * (0.8 * tone + 0.2 * rng.standard_normal(t.size))).astype(np.float32)


def spoken(seconds: float, seed: int, loudness: float = 0.3) -> Audio:
    return Audio((speech(seconds, seed, loudness) * 32767).astype("<i2").tobytes())


def golden_turn(golden: Path, row: int) -> Turn:
    """The turn behind a golden's row, as the reference was given it."""
    system = ("You are Chroma, an advanced virtual human.", "You are a helpful assistant.")[row]
    samples, _ = soundfile.read(golden / f"user{row}.wav", dtype="float32")
    clip = Audio(samples.tobytes(), "float32")  # its samples are no int16
    return turn(f"row {row}", (message("system", said(system)), message("user", clip)), tokens=12)


def said(text: str) -> Text:
    return Text(text)


def message(role: str, *parts: Text | Audio) -> Message:
    return Message(role, parts)  # type: ignore[arg-type]


CONVERSATIONS: dict[str, tuple[Message, ...]] = {
    "text only": (message("user", said("Hello, who are you?")),),
    "one question": (message("system", said("You are brief.")), message("user", spoken(1.0, 1))),
    "long question": (message("user", spoken(4.3, 2)),),
    "history": (
        message("system", said("You are Chroma. " * 12)),
        message("user", spoken(2.7, 3)),
        message("assistant", said("I like music, and you?")),
        message("user", said("Listen: "), spoken(0.4, 4), said(" What was that?")),
        message("assistant", said("A bell.")),
        message("user", spoken(2.0, 5, 0.01)),
    ),
    "two clips": (message("user", spoken(0.05, 6), spoken(3.1, 7, 0.9)),),
    "long text": (message("user", said("This goes on and on. " * 40)),),
}


def turn(
    name: str,
    messages: Sequence[Message],
    *,
    tokens: int = 16,
    temperature: float = 0.0,
    seed: int = 7,
    priority: int = 0,
) -> Turn:
    return Turn(
        id=name.replace(" ", "-"),
        affinity="someone",
        messages=tuple(messages),
        voice=EncodedVoice("", b"", ""),
        sampling=Sampling(seed=seed, text_temperature=temperature),
        limits=Limits(max_text_tokens=tokens),
        priority=priority,
    )


@dataclass
class Heard:
    """What came out of one stream."""

    items: list[Admitted | list[TextStep] | Finished] = field(default_factory=list)

    @property
    def steps(self) -> list[TextStep]:
        return [step for item in self.items if isinstance(item, list) for step in item]

    @property
    def tokens(self) -> list[int]:
        return [step.token for step in self.steps]

    @property
    def rows(self) -> Tensor:
        """float32 [steps, hidden]"""
        return torch.stack([torch.frombuffer(bytearray(step.row), dtype=torch.float32) for step in self.steps])

    @property
    def end(self) -> Finished:
        end = self.items[-1]
        assert isinstance(end, Finished)
        return end


async def listen(engine: ReasonerEngine, turn: Turn, after: Sequence[int] = ()) -> Heard:
    """One whole reply."""
    heard = Heard()
    async with aclosing(engine.steps(turn, after)) as items:  # type: ignore[type-var]
        async for item in items:
            heard.items.append(item)
    return heard
