"""What a client may do wrong in a conversation. The codes are those that OpenAI's Realtime clients know."""

from typing import Literal

from chroma_models.errors import InvalidAudio, InvalidRequest

Verb = Literal["create", "delete", "retrieve", "truncate", "reference"]


class NothingToCancel(InvalidRequest):
    code = "response_cancel_not_active"


class AlreadyAnswering(InvalidRequest):
    """A conversation has one running response at a time; out-of-band ones run beside it."""

    code = "conversation_already_has_active_response"


class TooManyResponses(InvalidRequest):
    code = "too_many_responses"


class DuplicateItem(InvalidRequest):
    code = "item_create_duplicate_item_id"


class UnknownItem(InvalidRequest):
    """An id that names no item of this conversation; verb says what was asked of it."""

    def __init__(self, verb: Verb, item_id: str) -> None:
        param = {"create": "previous_item_id", "reference": "response.input"}.get(verb, "item_id")
        super().__init__(f"There is no item '{item_id[:64]}' in this conversation.", param)
        self.args = (verb, item_id)
        self.code = f"item_{verb}_invalid_item_id"  # type: ignore[misc]  # one class, a code for each verb


class EmptyBuffer(InvalidAudio):
    code = "input_audio_buffer_commit_empty"


class SessionClosed(InvalidRequest):
    code = "session_closed"
