"""One caller: a spoken question over HTTP, and the reply listened to at the pace of speech."""

import base64
import io
import json
import random
import time
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from loadtest.playback import Playback

STREAMED_PIECES = 3  # a reply in no more pieces than this came whole


@dataclass
class Heard:
    """What became of one question."""

    playback: Playback
    pieces: int = 0
    finish: str | None = None
    error: str | None = None
    server: dict[str, Any] = field(default_factory=dict)  # the reply's own account: first audio, seconds by stage

    @property
    def streamed(self) -> bool:
        return self.error is None and self.finish is not None and self.pieces > STREAMED_PIECES


@dataclass(frozen=True)
class Question:
    """A recorded question, int16 mono."""

    samples: np.ndarray
    rate_hz: int

    @classmethod
    def read(cls, path: Path) -> "Question":
        with wave.open(str(path)) as clip:
            if clip.getsampwidth() != 2 or clip.getnchannels() != 1:
                raise ValueError(f"{path} is not 16-bit mono")
            return cls(np.frombuffer(clip.readframes(clip.getnframes()), np.int16), clip.getframerate())

    def lasting(self, seconds: float) -> "Question":
        """The same words over and over, cut at so many seconds."""
        return Question(np.resize(self.samples, round(seconds * self.rate_hz)), self.rate_hz)

    def varied(self, rng: random.Random) -> "Question":
        """Quieter by a little and begun later by a little, so that no cache knows it."""
        turned = np.roll(self.samples, rng.randrange(len(self.samples)))
        return Question((turned * rng.uniform(0.7, 1.0)).astype(np.int16), self.rate_hz)

    def wav(self) -> bytes:
        file = io.BytesIO()
        with wave.open(file, "wb") as clip:
            clip.setnchannels(1)
            clip.setsampwidth(2)
            clip.setframerate(self.rate_hz)
            clip.writeframes(self.samples.tobytes())
        return file.getvalue()


async def ask(client: httpx.AsyncClient, url: str, question: Question, seed: int, reply_s: float) -> Heard:
    """Send a question and hear the reply out. What goes wrong is in the result; nothing is raised."""
    body = json.dumps(_body(question, seed, reply_s)).encode()
    heard = Heard(Playback(time.monotonic()))
    try:
        headers = {"content-type": "application/json"}
        async with client.stream("POST", f"{url}/v1/chat/completions", content=body, headers=headers) as response:
            if response.status_code != 200:
                heard.error = f"HTTP {response.status_code}: {(await response.aread())[:200]!r}"
                return heard
            async for event in events_of(response):
                take(heard, event)
    except httpx.HTTPError as error:
        heard.error = f"{type(error).__name__}: {error}"
    return heard


def _body(question: Question, seed: int, reply_s: float) -> dict[str, Any]:
    clip = {"data": base64.b64encode(question.wav()).decode(), "format": "wav"}
    return {
        "model": "chroma",
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": clip}]}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "default", "format": "pcm16"},
        "stream": True,
        "seed": seed,
        "chroma": {"max_reply_s": reply_s},
    }


async def events_of(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def take(heard: Heard, event: dict[str, Any]) -> None:
    now = time.monotonic()
    heard.server = event.get("chroma") or heard.server
    if event.get("error"):
        heard.error = str(event["error"])
    for choice in event.get("choices", []):
        heard.finish = choice.get("finish_reason") or heard.finish
        audio = choice["delta"].get("audio") or {}
        if audio.get("data"):
            heard.pieces += 1
            heard.playback.heard(len(base64.b64decode(audio["data"])), now)
