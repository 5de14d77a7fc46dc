"""What a session tells, as the server events of the API, in its order."""

import itertools
import secrets
from collections.abc import Iterator
from typing import Any

from deployments.ingress.audio_in import encode_base64
from deployments.ingress.errors import body_of
from deployments.ingress.realtime.session_shape import told_format
from deployments.ingress.realtime.wire_items import told_item
from deployments.ingress.session.events import (
    AudioCleared,
    AudioCommitted,
    Delta,
    Event,
    IdleTimeout,
    ItemAdded,
    ItemDeleted,
    ItemTruncated,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseInfo,
    ResponseStarted,
    ResponseUsage,
    SpeechStarted,
    SpeechStopped,
)
from deployments.ingress.session.items import Item

Json = dict[str, Any]

RUN = secrets.token_hex(6)  # ids are those of this process, numbered: a random one for each takes longer than all else
NUMBERS = itertools.count()


def server_event(kind: str, **fields: Any) -> Json:
    return {"type": kind, "event_id": _event_id(), **fields}


def _event_id() -> str:
    return f"event_{RUN}{next(NUMBERS):08x}"


def error_event(error: Exception, session_id: str, client_event_id: str | None) -> Json:
    """Of a malformed or illegal client event, never of a turn."""
    told = body_of(error, session_id)["error"]
    return server_event("error", error={**told, "event_id": client_event_id})


class Spelling:
    """One session's events. Those with audio to be encoded first are the connection's (item.retrieved)."""

    def __init__(self, conversation_id: str) -> None:
        self._conversation_id = conversation_id

    def spell(self, event: Event) -> Iterator[Json | str]:
        """In order; as an object, or as the JSON of one."""
        match event:
            case Delta():
                yield from _delta(event)
            case SpeechStarted():
                yield server_event(
                    "input_audio_buffer.speech_started", item_id=event.item_id, audio_start_ms=event.start_ms
                )
            case SpeechStopped():
                yield server_event(
                    "input_audio_buffer.speech_stopped", item_id=event.item_id, audio_end_ms=event.end_ms
                )
            case IdleTimeout():
                yield server_event(
                    "input_audio_buffer.timeout_triggered",
                    item_id=event.item_id,
                    audio_start_ms=event.start_ms,
                    audio_end_ms=event.end_ms,
                )
            case AudioCommitted():
                yield server_event(
                    "input_audio_buffer.committed", item_id=event.item_id, previous_item_id=event.previous_item_id
                )
            case AudioCleared():
                yield server_event("input_audio_buffer.cleared")
            case ItemAdded():
                yield from _added(event.item, event.previous_item_id)
                yield _done(event.item, event.previous_item_id)
            case ItemDeleted():
                yield server_event("conversation.item.deleted", item_id=event.item_id)
            case ItemTruncated():
                yield server_event(
                    "conversation.item.truncated",
                    item_id=event.item_id,
                    content_index=event.content_index,
                    audio_end_ms=event.audio_end_ms,
                )
            case ResponseStarted():
                yield server_event("response.created", response=self.response(event.response, "in_progress"))
            case OutputStarted():
                yield from _output_started(event)
            case OutputDone():
                yield from _output_done(event)
            case ResponseDone():
                yield server_event("response.done", response=self._response_done(event))
                yield server_event("rate_limits.updated", rate_limits=[])  # nobody has a quota of requests or tokens
            case _:
                raise AssertionError(f"{type(event).__name__} is not spelled here")

    def response(self, info: ResponseInfo, status: str) -> Json:
        settings = info.settings
        return {
            "object": "realtime.response",
            "id": info.id,
            "status": status,
            "status_details": None,
            "output": [],
            "conversation_id": self._conversation_id if info.in_conversation else None,
            "output_modalities": ["audio"] if settings.speaks else ["text"],
            "max_output_tokens": settings.max_text_tokens or "inf",
            "audio": {"output": {"format": told_format(settings.output), "voice": settings.voice_name}},
            "metadata": None if info.metadata is None else dict(info.metadata),
            "usage": None,
        }

    def _response_done(self, event: ResponseDone) -> Json:
        details: Json | None = None
        if event.error is not None:
            told = body_of(event.error, event.response.id)["error"]
            details = {"type": "failed", "error": {key: told[key] for key in ("type", "code", "message")}}
        elif event.reason is not None:
            details = {"type": event.status, "reason": event.reason}
        return {
            **self.response(event.response, event.status),
            "status_details": details,
            "output": [told_item(item) for item in event.output],
            "usage": _usage(event.usage),
            "chroma": dict(event.report),
        }


def _added(item: Item, previous: str | None) -> Iterator[Json]:
    yield server_event("conversation.item.added", previous_item_id=previous, item=told_item(item))


def _done(item: Item, previous: str | None) -> Json:
    return server_event("conversation.item.done", previous_item_id=previous, item=told_item(item))


def _where(response: ResponseInfo, item_id: str) -> Json:
    """Every response has one item of one part."""
    return {"response_id": response.id, "item_id": item_id, "output_index": 0, "content_index": 0}


def _output_started(event: OutputStarted) -> Iterator[Json]:
    item, info = event.item, event.response
    yield server_event("response.output_item.added", response_id=info.id, output_index=0, item=told_item(item))
    if info.in_conversation:
        yield from _added(item, event.previous_item_id)
    part = {"type": "audio", "transcript": ""} if info.settings.speaks else {"type": "text", "text": ""}
    yield server_event("response.content_part.added", **_where(info, item.id), part=part)


def _delta(event: Delta) -> Iterator[Json | str]:
    text = event.text
    if text:
        spoken = event.response.settings.speaks
        kind = "response.output_audio_transcript.delta" if spoken else "response.output_text.delta"
        yield server_event(kind, **_where(event.response, event.item_id), delta=text)
    if event.audio:
        # most of what is sent is this; nothing in it needs escaping
        yield (
            f'{{"type":"response.output_audio.delta","event_id":"{_event_id()}","response_id":"{event.response.id}",'
            f'"item_id":"{event.item_id}","output_index":0,"content_index":0,"delta":"{encode_base64(event.audio)}"}}'
        )


def _output_done(event: OutputDone) -> Iterator[Json]:
    where = _where(event.response, event.item.id)
    text = event.text
    if event.response.settings.speaks:
        yield server_event("response.output_audio.done", **where)
        yield server_event("response.output_audio_transcript.done", **where, transcript=text)
        part = {"type": "audio", "transcript": text}
    else:
        yield server_event("response.output_text.done", **where, text=text)
        part = {"type": "text", "text": text}
    yield server_event("response.content_part.done", **where, part=part)
    if event.response.in_conversation:
        yield _done(event.item, event.previous_item_id)
    yield server_event(
        "response.output_item.done", response_id=event.response.id, output_index=0, item=told_item(event.item)
    )


def _usage(usage: ResponseUsage) -> Json:
    output = usage.text_tokens + usage.audio_tokens
    return {
        "total_tokens": usage.prompt_tokens + output,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": output,
        "input_token_details": {
            "text_tokens": usage.prompt_tokens - usage.prompt_audio_tokens,
            "audio_tokens": usage.prompt_audio_tokens,
            "image_tokens": 0,
            "cached_tokens": usage.cached_tokens,
        },
        "output_token_details": {"text_tokens": usage.text_tokens, "audio_tokens": usage.audio_tokens},
    }
