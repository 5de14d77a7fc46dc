"""What a client of the Realtime API may rely on: events come in their order, and none comes from another session."""

from typing import Any

FIRST = "-"
USER_ITEM = {
    FIRST: ("input_audio_buffer.speech_started", "input_audio_buffer.committed", "conversation.item.added"),
    "input_audio_buffer.speech_started": ("input_audio_buffer.speech_stopped",),
    "input_audio_buffer.speech_stopped": ("input_audio_buffer.committed",),
    "input_audio_buffer.committed": ("conversation.item.added",),
    "conversation.item.added": ("conversation.item.done",),
    "conversation.item.done": (),
}
PART = ("response.output_audio_transcript.delta", "response.output_audio.delta")
RESPONSE = {
    FIRST: ("response.created",),
    "response.created": ("response.output_item.added", "response.done"),
    "response.output_item.added": ("conversation.item.added",),
    "conversation.item.added": ("response.content_part.added",),
    "response.content_part.added": (*PART, "response.output_audio.done"),
    **{delta: (*PART, "response.output_audio.done") for delta in PART},
    "response.output_audio.done": ("response.output_audio_transcript.done",),
    "response.output_audio_transcript.done": ("response.content_part.done",),
    "response.content_part.done": ("conversation.item.done",),
    "conversation.item.done": ("response.output_item.done",),
    "response.output_item.done": ("response.done",),
    "response.done": (),
}
APART = ("session.created", "session.updated", "rate_limits.updated", "conversation.item.truncated", "error")


class EventOrder:
    """Follows one session's events. owners is shared by all sessions: which one an id was first seen in."""

    def __init__(self, session: int, owners: dict[str, int]) -> None:
        self._session, self._owners = session, owners
        self._last: dict[str, str] = {}  # kind of the last event, by user item or response
        self._spoken: dict[str, str] = {}  # response, by the item that it became
        self.faults: list[str] = []

    def see(self, event: dict[str, Any]) -> None:
        """An audio delta may be seen without its audio."""
        kind = event["type"]
        response_id = event.get("response_id") or event.get("response", {}).get("id")
        item_id = event.get("item_id") or event.get("item", {}).get("id")
        for name in (event["event_id"], response_id, item_id, event.get("response", {}).get("conversation_id")):
            if name is not None and self._owners.setdefault(name, self._session) != self._session:
                self.faults.append(f"{kind} has the id {name} of another session")
        if kind in APART:
            return
        if response_id is not None:
            if item_id is not None:
                self._spoken.setdefault(item_id, response_id)
        else:
            response_id = self._spoken.get(item_id or "")
        subject, order = (response_id, RESPONSE) if response_id is not None else (item_id, USER_ITEM)
        last = self._last.get(subject or "", FIRST)
        if subject is None or kind not in order.get(last, ()):
            self.faults.append(f"{kind} of {subject} came after {last}")
        self._last[subject or ""] = kind

    def unfinished(self) -> list[str]:
        """Responses and user items that never came to their last event."""
        return [f"{subject} ended with {kind}" for subject, kind in self._last.items() if (RESPONSE | USER_ITEM)[kind]]
