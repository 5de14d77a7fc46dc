"""The shapes of answers to POST /v1/chat/completions: one object, or chunks of a stream."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from chroma_models.types import Audio, Finished, FinishReason, Message

Json = dict[str, Any]

FINISH: dict[FinishReason, str] = {
    "end_of_speech": "stop",
    "max_reply": "length",
    "max_text_tokens": "length",
    "positions": "length",
}


def audio_tokens(messages: Sequence[Message]) -> int:
    """Tokens the Reasoner reads for the spoken parts: 25 a second, from mel frames of 10 ms. Source: SPEC section 2.

    Qwen2.5-Omni's processor halves the mel frames twice, rounding as here.
    """
    mels = [-(-p.count // 160) for m in messages for p in m.parts if isinstance(p, Audio)]
    return sum(max(0, ((n - 1) // 2 - 1) // 2 + 1) for n in mels)


def usage(finished: Finished, frames: int, spoken_prompt_tokens: int) -> Json:
    """A reply's audio counts a token per frame: what was delivered, not what was made ahead."""
    counted = finished.usage
    heard = min(spoken_prompt_tokens, counted.prompt_tokens)
    completion = counted.text_tokens + frames
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": counted.prompt_tokens + completion,
        "prompt_tokens_details": {
            "audio_tokens": heard,
            "text_tokens": counted.prompt_tokens - heard,
            "cached_tokens": counted.cached_tokens,
        },
        "completion_tokens_details": {
            "audio_tokens": frames,
            "text_tokens": counted.text_tokens,
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def new_answer_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


class Envelope:
    """What every object of one answer has in common."""

    def __init__(self, answer_id: str, model: str, fingerprint: str) -> None:
        self.id = answer_id
        self.audio_id = f"audio_{uuid.uuid4().hex}"
        self._model, self._fingerprint = model, fingerprint
        self._created = int(time.time())

    def completion(self, message: Json, finish_reason: str, usage: Json) -> Json:
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return self._object("chat.completion", [choice]) | {"usage": usage}

    def chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._object("chat.completion.chunk", [choice])

    def usage_chunk(self, usage: Json) -> Json:
        return self._object("chat.completion.chunk", []) | {"usage": usage}

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self._fingerprint,
            "choices": choices,
        }
