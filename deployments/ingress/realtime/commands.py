"""What each client event does."""

from functools import partial
from typing import Any

from chroma_models.errors import TooLarge
from chroma_models.types import EncodedVoice
from deployments.ingress.audio_in import decode_base64
from deployments.ingress.callers import Caller
from deployments.ingress.realtime.server_events import server_event
from deployments.ingress.realtime.session_shape import SessionShape
from deployments.ingress.realtime.shapes import (
    AudioAppend,
    AudioClear,
    AudioCommit,
    InputItem,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputClear,
    Reference,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
    client_event,
    response_params,
)
from deployments.ingress.realtime.wire_items import read_item
from deployments.ingress.services import Services
from deployments.ingress.session.items import Item
from deployments.ingress.session.session import Session
from deployments.ingress.voices import BUILT_IN_NAME

Json = dict[str, Any]

SMALL_AUDIO = 1 << 16  # characters of base64; more is decoded beside the event loop


class Commands:
    """One session's settings, as its client sees them, and everything its client may ask for."""

    def __init__(self, services: Services, caller: Caller, shape: SessionShape, voice: EncodedVoice | None) -> None:
        """voice: what the shape's resolves to."""
        self._services, self._caller, self._shape, self._voice = services, caller, shape, voice
        self.session = Session(services, caller, shape.settings(voice))

    @classmethod
    async def open(cls, services: Services, caller: Caller) -> "Commands":
        """With the settings that the caller's client secret carries. Raises InvalidRequest, UnknownVoice."""
        shape = SessionShape.default(services.config.model_id).updated(caller.session or {})
        return cls(services, caller, shape, await _resolved(services, caller, shape, "session"))

    def told(self) -> Json:
        """The session object."""
        return {"id": self.session.id, "expires_at": self.session.expires_at, **self._shape.told()}

    async def do(self, body: Json) -> None:
        """Raises what is wrong with the event, having changed nothing."""
        session = self.session
        match client_event(body):
            case AudioAppend(audio=audio):
                decode = partial(decode_base64, audio)
                data = decode() if len(audio) < SMALL_AUDIO else await self._services.off_loop(decode)
                await session.append_audio(data)
            case AudioCommit():
                session.commit()
            case AudioClear():
                session.clear()
            case OutputClear():
                session.tell(server_event("output_audio_buffer.cleared", response_id=session.cancel()))
            case SessionUpdate(session=update):
                await self._update(update)
            case ItemCreate(item=message, previous_item_id=after):
                session.add_item(await self._read(message), after)
            case ItemDelete(item_id=item_id):
                session.delete_item(item_id)
            case ItemRetrieve(item_id=item_id):
                session.retrieve(item_id)
            case ItemTruncate(item_id=item_id, content_index=index, audio_end_ms=end_ms):
                session.truncate(item_id, index, end_ms)
            case ResponseCreate(response=response):
                await self._respond(response or {})
            case ResponseCancel(response_id=response_id):
                session.cancel(response_id)

    async def _update(self, update: Json) -> None:
        shape = self._shape.updated(update)
        voice = self._voice
        if shape.voice != self._shape.voice:
            voice = await _resolved(self._services, self._caller, shape, "session")
        self.session.configure(shape.settings(voice))
        self._shape, self._voice = shape, voice
        self.session.tell(server_event("session.updated", session=self.told()))

    async def _respond(self, response: Json) -> None:
        params = response_params(response)
        if len(params.input or ()) > (most := self._services.config.max_messages):
            raise TooLarge(f"A response has at most {most} items of its own.", "response.input")
        shape = self._shape.for_response(response)
        voice = self._voice
        if shape.voice != self._shape.voice:
            voice = await _resolved(self._services, self._caller, shape, "response")
        given = None if params.input is None else [await self._given(item) for item in params.input]
        self.session.respond(
            shape.settings(voice),
            in_conversation=params.conversation != "none",
            given=given,
            metadata=params.metadata,
        )

    async def _given(self, item: InputItem) -> Item:
        return self.session.referred(item.id) if isinstance(item, Reference) else await self._read(item)

    async def _read(self, message: Any) -> Item:
        services = self._services
        return await services.off_loop(partial(read_item, message, self.session.input_format, services.config.audio))


async def _resolved(services: Services, caller: Caller, shape: SessionShape, param: str) -> EncodedVoice | None:
    if shape.voice == BUILT_IN_NAME:
        return None
    return await services.voices.resolve(shape.voice, caller, f"{param}.audio.output.voice")
