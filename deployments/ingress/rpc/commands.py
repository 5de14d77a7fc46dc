"""What each request of a conversation does."""

from dataclasses import replace
from functools import partial

from chroma_models.errors import InvalidRequest, TooLarge
from deployments.ingress.callers import Caller
from deployments.ingress.rpc.messages import check_count, item_of, items_of
from deployments.ingress.rpc.settings import settings_of, told_config
from deployments.ingress.rpc.status import duration, seconds
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.services import Services
from deployments.ingress.session.events import OutputStarted
from deployments.ingress.session.session import Session
from deployments.ingress.session.settings import METADATA_KEY_CHARS, METADATA_PAIRS, METADATA_VALUE_CHARS


class Commands:
    """Everything a client may ask of one session."""

    def __init__(self, services: Services, caller: Caller, session: Session) -> None:
        self._services, self._caller, self._session = services, caller, session
        self._said: dict[str, str] = {}  # item that a response became, the newest last

    def ready(self) -> pb.SessionReady:
        config, settings = self._services.config, self._session.settings
        return pb.SessionReady(
            session_id=self._session.id,
            config=told_config(settings, config.model_id),
            longest=duration(config.session.max_session_s),
        )

    def spoken(self, event: OutputStarted) -> None:
        """A response has an item from now on."""
        if event.response.in_conversation:
            self._said[event.response.id] = event.item.id
            if len(self._said) > self._services.config.session.max_items:
                del self._said[next(iter(self._said))]

    async def do(self, request: pb.ConverseRequest) -> None:
        """Raises what is wrong with the request, having changed nothing."""
        session = self._session
        match request.WhichOneof("message"):
            case "audio":
                await self._audio(request.audio)
            case "commit_audio":
                session.commit()
            case "clear_audio":
                session.clear()
            case "add_message":
                check_count([request.add_message], self._services.config.max_messages, "add_message")
                audio = self._services.config.audio
                session.add_item(
                    await self._services.off_loop(partial(item_of, request.add_message, audio, "add_message"))
                )
            case "create_response":
                await self._respond(request.create_response)
            case "cancel_response":
                session.cancel(request.cancel_response.response_id or None)
            case "truncate_response":
                self._truncate(request.truncate_response)
            case "config":
                session.configure(await settings_of(request.config, self._services, self._caller))
                session.tell(pb.ConverseResponse(session_ready=self.ready()))
            case _:
                raise InvalidRequest("A request holds one message that this server knows.")

    async def _audio(self, data: bytes) -> None:
        most = self._services.config.grpc.max_live_bytes
        if len(data) > most:
            raise TooLarge(f"One piece of audio holds at most {most} bytes; send smaller ones.", "audio")
        await self._session.append_audio(data)

    async def _respond(self, asked: pb.CreateResponse) -> None:
        if asked.messages and not asked.out_of_band:
            raise InvalidRequest("Only an out_of_band response has messages of its own.", "create_response.messages")
        given = None
        if asked.messages:
            check_count(asked.messages, self._services.config.max_messages, "create_response.messages")
            audio = self._services.config.audio
            given = await self._services.off_loop(partial(items_of, asked.messages, audio, "create_response.messages"))
        settings = self._session.settings
        if asked.HasField("instructions"):
            settings = replace(settings, instructions=asked.instructions)
        metadata = _metadata(dict(asked.metadata))
        self._session.respond(settings, in_conversation=not asked.out_of_band, given=given, metadata=metadata)

    def _truncate(self, asked: pb.TruncateResponse) -> None:
        item_id = self._said.get(asked.response_id)
        if item_id is None:
            raise InvalidRequest(
                f"No response '{asked.response_id[:64]}' of this conversation has been spoken.",
                "truncate_response.response_id",
            )
        self._session.truncate(item_id, 0, round(1000 * seconds(asked.heard)))


def _metadata(pairs: dict[str, str]) -> dict[str, str]:
    long = any(len(key) > METADATA_KEY_CHARS or len(value) > METADATA_VALUE_CHARS for key, value in pairs.items())
    if long or len(pairs) > METADATA_PAIRS:
        raise TooLarge(
            f"Metadata holds at most {METADATA_PAIRS} pairs, of {METADATA_KEY_CHARS} and {METADATA_VALUE_CHARS} "
            "characters.",
            "create_response.metadata",
        )
    return pairs
