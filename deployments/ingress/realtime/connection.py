"""One WebSocket, from the upgrade to the close."""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import pydantic_core
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from deployments.ingress.errors import is_fault
from deployments.ingress.json_body import check_depth, parse_object
from deployments.ingress.pace import Pace
from deployments.ingress.patience import Patience
from deployments.ingress.realtime.commands import Commands
from deployments.ingress.realtime.server_events import Spelling, error_event, server_event
from deployments.ingress.realtime.shapes import InvalidEvent, quick_append
from deployments.ingress.realtime.wire_items import retrieved_item
from deployments.ingress.services import Services
from deployments.ingress.session.events import Aside, ItemRetrieved
from deployments.ingress.session.session import Session

log = logging.getLogger(__name__)

Json = dict[str, Any]

SMALL_EVENT = 1 << 16  # characters; a larger one is parsed beside the event loop
LAST_WORDS_S = 2.0  # for what waits to be sent, and for the close itself


@dataclass(frozen=True, slots=True)
class Close:
    """1001: the session is over. 1008: its key is. 1011: our fault. 1012: this replica goes, another takes over."""

    code: int
    reason: str


EXPIRED = Close(1001, "session_expired")
REVOKED = Close(1008, "invalid_api_key")
FAULT = Close(1011, "internal_error")
MOVING = Close(1012, "service_restart")


class Connection:
    """Client events become calls of a session, its events become server events; each way has a task of its own."""

    def __init__(self, websocket: WebSocket, services: Services, session: Session, commands: Commands) -> None:
        self._socket, self._services, self._session, self._commands = websocket, services, session, commands
        self._spelling = Spelling(session.conversation_id)
        limits = services.config.realtime
        self._pace = Pace(limits.max_events_per_s, limits.burst_events)
        self._patience, self._clock = Patience(), asyncio.get_running_loop().time

    async def run(self) -> None:
        """Returns when the connection is closed, or nobody is left on the other side. Closes the session."""
        reading = asyncio.create_task(self._read(), name=f"read-{self._session.id}")
        writing = asyncio.create_task(self._write(), name=f"write-{self._session.id}")
        leaving = asyncio.create_task(self._leave(), name=f"leave-{self._session.id}")
        close: Close | None = None
        try:
            await asyncio.wait({reading, writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            close = leaving.result() if leaving.done() else self._failure(reading) or self._failure(writing)
        except asyncio.CancelledError:
            if not self._services.health.uncancel():
                raise
            close = MOVING
        finally:
            reading.cancel()
            leaving.cancel()
            await self._session.close()
            if close is not None:
                await asyncio.wait({writing}, timeout=LAST_WORDS_S)
            writing.cancel()
            await asyncio.gather(reading, writing, leaving, return_exceptions=True)
            self._patience.close()
            if close is not None:
                await self.close(close)

    async def _read(self) -> None:
        """Until the client has gone."""
        while True:
            if self._session.hurried:
                await self._session.unhurried()
            if (wait_s := self._pace.take_s()) > 0:
                await asyncio.sleep(wait_s)
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._take(message.get("text"))

    async def _take(self, text: str | None) -> None:
        """What is wrong with an event is told; the session lives on."""
        named: str | None = None
        try:
            if text is not None and len(text) < SMALL_EVENT and (append := quick_append(text)) is not None:
                named = append.event_id
                return await self._session.append_audio(append.audio)
            body = await self._parse(text)
            if isinstance(body.get("event_id"), str):
                named = body["event_id"]
            await self._commands.do(body)
        except Exception as error:
            if is_fault(error):
                log.error("an event of session %s failed", self._session.id, exc_info=error)
            self._session.tell(error_event(error, self._session.id, named))

    async def _parse(self, text: str | None) -> Json:
        if text is None:
            raise InvalidEvent("Events are JSON in text frames; this was a binary frame. Audio goes in as base64.")
        if len(text) >= SMALL_EVENT:
            parse = partial(parse_object, text.encode(), self._services.config)
            return await self._services.off_loop(parse)
        try:
            body = pydantic_core.from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidEvent(f"The event is not valid JSON: {error}.") from None
        if not isinstance(body, dict):
            raise InvalidEvent("An event is a JSON object.")
        check_depth(body, self._services.config)
        return body

    async def _write(self) -> None:
        """Until the session is closed. Raises TimeoutError where the client takes nothing for max_send_s."""
        await self._send(server_event("session.created", session=self._commands.told()))
        async for event in self._session.events():
            if isinstance(event, Aside):
                await self._send(event.payload)
            elif isinstance(event, ItemRetrieved):
                item = await self._services.off_loop(partial(retrieved_item, event.item, self._session.input_format))
                await self._send(server_event("conversation.item.retrieved", item=item))
            else:
                for told in self._spelling.spell(event):
                    await self._send(told)

    async def _send(self, told: Json | str) -> None:
        """told: an event, or the JSON of one."""
        text = told if isinstance(told, str) else pydantic_core.to_json(told).decode()
        ends_at = self._clock() + self._services.config.max_send_s
        await self._patience.until(ends_at, self._socket.send({"type": "websocket.send", "text": text}))

    async def _leave(self) -> Close:
        """When and why the server ends the connection."""
        return EXPIRED if await self._session.outstayed() else MOVING

    def _failure(self, task: asyncio.Task[None]) -> Close | None:
        """What a task that ended by itself died of; a client that went, or takes nothing, needs no close."""
        error = task.exception() if task.done() else None
        if error is None or isinstance(error, TimeoutError | WebSocketDisconnect):
            return None
        log.error("session %s failed", self._session.id, exc_info=error)
        return FAULT

    async def close(self, close: Close) -> None:
        if self._socket.client_state is not WebSocketState.CONNECTED:
            return
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._socket.close(close.code, close.reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            log.info("session %s was not there to be closed", self._session.id)
