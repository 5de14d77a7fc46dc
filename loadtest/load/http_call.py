"""Calls over HTTP: each question is recorded, then sent whole; the answer is streamed. No connection in between."""

import base64
import json
import threading
import time
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from loadtest.listener import Question
from loadtest.load.call import Line
from loadtest.load.ear import Ear
from loadtest.load.realtime_call import code_of
from loadtest.microphone import Utterance
from loadtest.playback import RATE_HZ

WAIT_S = 60.0


class HttpCall:
    door = "http"

    def __init__(self, line: Line) -> None:
        self._line, self.ear = line, Ear()
        self._history: list[dict[str, Any]] = []
        self._turns = 0
        self._response: httpx.Response | None = None
        self._left = False

    def open(self) -> None:
        self._client = httpx.Client(timeout=WAIT_S)

    def say(self, samples: NDArray[np.int16]) -> Utterance:
        """Returns at once; whoever speaks over an answer has left its request."""
        utterance = Utterance(samples)
        threading.Thread(target=self._speak, args=(utterance,), name="recording", daemon=True).start()
        return utterance

    def cancel(self) -> None:
        if self._response is not None:
            self._left = True
            self._response.close()

    def hang_up(self) -> None:
        self.cancel()
        self._client.close()

    def close(self) -> None:
        self.hang_up()

    def late_s(self) -> float:
        return 0.0

    def _speak(self, utterance: Utterance) -> None:
        """Plays the words at the pace of speech, then asks."""
        self.cancel()
        heard_from = time.monotonic()
        time.sleep(len(utterance.samples) / RATE_HZ)
        utterance.next(len(utterance.samples), heard_from)
        self.ear.committed()
        self._turns += 1
        self._ask(f"turn-{self._turns}", utterance.samples)

    def _ask(self, name: str, samples: NDArray[np.int16]) -> None:
        clip = {"data": base64.b64encode(Question(samples, RATE_HZ).wav()).decode(), "format": "wav"}
        self._history.append({"role": "user", "content": [{"type": "input_audio", "input_audio": clip}]})
        words: list[str] = []
        self.ear.begun(name)
        code = None
        try:
            with self._client.stream(
                "POST",
                f"{self._line.url}/v1/chat/completions",
                json=self._body(),
                headers={"authorization": f"Bearer {self._line.key}"},
            ) as response:
                self._response = response
                if response.status_code == 200:
                    code = self._hear(name, response, words)
                else:
                    code = code_of(response.read(), f"HTTP_{response.status_code}")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            code = type(error).__name__
        left, self._left, self._response = self._left, False, None
        self.ear.done(name, None if left else code, "left" if left else None)
        self._history.append({"role": "assistant", "content": "".join(words) or "..."})

    def _body(self) -> dict[str, Any]:
        return {
            "model": "chroma",
            "messages": self._history,
            "modalities": ["text", "audio"],
            "audio": {"voice": "default", "format": "pcm16"},
            "stream": True,
            "seed": self._line.seed + self._turns,
            "chroma": {"max_reply_s": self._line.reply_s},
        }

    def _hear(self, name: str, response: httpx.Response, words: list[str]) -> str | None:
        """Returns the code of what went wrong on the way."""
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if event.get("error"):
                return str(event["error"].get("code"))
            for choice in event.get("choices", []):
                audio = choice["delta"].get("audio") or {}
                words.append(audio.get("transcript") or "")
                if audio.get("data"):
                    pcm_bytes = len(audio["data"]) * 3 // 4 - audio["data"].count("=", -2)
                    self.ear.audio(name, pcm_bytes)
                    self._line.dawdle(pcm_bytes)
        return None
