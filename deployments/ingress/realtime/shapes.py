"""What clients send: the eleven client events, and what is inside them. Fields that mean nothing here are read past."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chroma_models.errors import InvalidRequest
from deployments.ingress.openai_parse import told
from deployments.ingress.session.settings import METADATA_KEY_CHARS, METADATA_PAIRS, METADATA_VALUE_CHARS

ID_CHARS = 128
APPEND = '"input_audio_buffer.append"'
HEAD_CHARS = 256  # of an event; clients write its type first, or after its id

Id = Annotated[str, Field(min_length=1, max_length=ID_CHARS)]


class Shape(BaseModel):
    """Strict about what is read: a number in quotes is told, not guessed."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class UserPart(Shape):
    type: Literal["input_text", "input_audio"]
    text: str | None = None
    audio: str | None = Field(None, repr=False)
    transcript: str | None = None


class SystemPart(Shape):
    type: Literal["input_text"]
    text: str


class AssistantPart(Shape):
    """Replayed history: words alone are read. Older clients call both kinds `text` and `audio`."""

    type: Literal["output_text", "output_audio", "text", "audio"]
    text: str | None = None
    transcript: str | None = None


class UserMessage(Shape):
    type: Literal["message"]
    role: Literal["user"]
    id: Id | None = None
    content: list[UserPart] = Field(min_length=1)


class SystemMessage(Shape):
    type: Literal["message"]
    role: Literal["system"]
    id: Id | None = None
    content: list[SystemPart] = Field(min_length=1)


class AssistantMessage(Shape):
    type: Literal["message"]
    role: Literal["assistant"]
    id: Id | None = None
    content: list[AssistantPart]


class Reference(Shape):
    """An item of the conversation, by its id, in the input of a response."""

    type: Literal["item_reference"]
    id: Id


MessageItem = Annotated[UserMessage | SystemMessage | AssistantMessage, Field(discriminator="role")]
InputItem = Annotated[MessageItem | Reference, Field(discriminator="type")]


class ClientEvent(Shape):
    event_id: str | None = None


class SessionUpdate(ClientEvent):
    type: Literal["session.update"]
    session: dict[str, Any]


class AudioAppend(ClientEvent):
    type: Literal["input_audio_buffer.append"]
    audio: str = Field(repr=False)


class AudioCommit(ClientEvent):
    type: Literal["input_audio_buffer.commit"]


class AudioClear(ClientEvent):
    type: Literal["input_audio_buffer.clear"]


class OutputClear(ClientEvent):
    type: Literal["output_audio_buffer.clear"]


class ItemCreate(ClientEvent):
    type: Literal["conversation.item.create"]
    item: MessageItem
    previous_item_id: Id | None = None


class ItemDelete(ClientEvent):
    type: Literal["conversation.item.delete"]
    item_id: Id


class ItemRetrieve(ClientEvent):
    type: Literal["conversation.item.retrieve"]
    item_id: Id


class ItemTruncate(ClientEvent):
    type: Literal["conversation.item.truncate"]
    item_id: Id
    content_index: int = 0
    audio_end_ms: int


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=METADATA_KEY_CHARS)], Annotated[str, Field(max_length=METADATA_VALUE_CHARS)]],
    Field(max_length=METADATA_PAIRS),
]


class ResponseParams(Shape):
    """Of them, what a session has too is read by SessionShape."""

    conversation: str | None = None  # "none" is out-of-band
    input: list[InputItem] | None = None
    metadata: Metadata | None = None


class ResponseCreate(ClientEvent):
    type: Literal["response.create"]
    response: dict[str, Any] | None = None


class ResponseCancel(ClientEvent):
    type: Literal["response.cancel"]
    response_id: Id | None = None


AnyEvent = (
    SessionUpdate
    | AudioAppend
    | AudioCommit
    | AudioClear
    | OutputClear
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel
)
ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="type")])


class QuickAppend(ClientEvent):
    """AudioAppend once more, for the event that comes most: JSON and base64 are read in one go."""

    model_config = ConfigDict(val_json_bytes="base64")

    type: Literal["input_audio_buffer.append"]
    audio: bytes = Field(repr=False)


def quick_append(text: str) -> QuickAppend | None:
    """None for any other event, and for one that is wrong: client_event says what."""
    if APPEND not in text[:HEAD_CHARS]:
        return None
    try:
        return QuickAppend.model_validate_json(text)
    except ValidationError:
        return None


class UnknownEvent(InvalidRequest):
    code = "unknown_event"


class InvalidEvent(InvalidRequest):
    code = "invalid_event"


def client_event(body: dict[str, Any]) -> AnyEvent:
    """Raises UnknownEvent, or InvalidRequest with the parameter that is wrong."""
    try:
        return ADAPTER.validate_python(body)
    except ValidationError as error:
        if error.errors()[0]["type"] in ("union_tag_invalid", "union_tag_not_found") and not error.errors()[0]["loc"]:
            name = body.get("type")
            known = "it is not an event of the Realtime API" if name is not None else "an event names its type"
            raise UnknownEvent(f"Unknown event type {str(name)[:64]!r}: {known}.", "type") from None
        raise told(error, body) from None


def response_params(body: dict[str, Any]) -> ResponseParams:
    """Raises InvalidRequest."""
    try:
        return ResponseParams.model_validate(body)
    except ValidationError as error:
        fault = told(error, body)
        raise InvalidRequest(fault.message, f"response.{fault.param}") from None
