"""Converse: one live conversation, from its first message to the end of the call."""

import asyncio
import logging

import grpc

from chroma_models.errors import InvalidRequest, StageUnavailable, TurnTimeout
from deployments.ingress.errors import is_fault
from deployments.ingress.pace import Pace
from deployments.ingress.rpc.call import Call
from deployments.ingress.rpc.commands import Commands
from deployments.ingress.rpc.settings import settings_of
from deployments.ingress.rpc.spelling import spell
from deployments.ingress.rpc.status import status_of
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.services import Services
from deployments.ingress.session.events import Aside, OutputStarted
from deployments.ingress.session.session import Session

log = logging.getLogger(__name__)

RETRY_S = 0.1  # another replica is there already
LAST_WORDS_S = 2.0  # for what waits to be sent when the call is ended by us


async def converse(services: Services, call: Call) -> None:
    """Whatever is wrong before the session is ready ends the call; later a refused message is told, and no more."""
    first = await call.context.read()
    if first is grpc.aio.EOF or first.WhichOneof("message") != "config":
        raise InvalidRequest("The first message must be `config`.", "config")
    settings = await settings_of(first.config, services, call.caller)
    await Conversation(services, call, Session(services, call.caller, settings, protocol="grpc")).run()


class Conversation:
    """Requests become calls of a session, its events become responses; each way has a task of its own."""

    def __init__(self, services: Services, call: Call, session: Session) -> None:
        self._services, self._call, self._session = services, call, session
        self._commands = Commands(services, call.caller, session)
        limits = services.config.grpc
        self._pace = Pace(limits.max_requests_per_s, limits.burst_requests)

    async def run(self) -> None:
        """Returns when the client has half-closed and has got all it was owed. Closes the session."""
        name = self._session.id
        reading = asyncio.create_task(self._read(), name=f"read-{name}")
        writing = asyncio.create_task(self._write(), name=f"write-{name}")
        leaving = asyncio.create_task(self._leave(), name=f"leave-{name}")
        try:
            await asyncio.wait({reading, writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            served = reading.done() and reading.exception() is None
            await self._session.close()
            await asyncio.wait({writing}, timeout=None if served else LAST_WORDS_S)
        finally:
            for task in (reading, writing, leaving):
                task.cancel()
            await self._session.close()
            await asyncio.gather(reading, writing, leaving, return_exceptions=True)
        for task in (writing, reading, leaving):
            if not task.cancelled():
                task.result()  # raises what it ended of

    async def _read(self) -> None:
        """Until the client has half-closed, and all it is owed has been made."""
        while True:
            if self._session.hurried:
                await self._session.unhurried()
            if (wait_s := self._pace.take_s()) > 0:
                await asyncio.sleep(wait_s)
            request = await self._call.context.read()
            if request is grpc.aio.EOF:
                return await self._session.finish()
            await self._take(request)

    async def _take(self, request: pb.ConverseRequest) -> None:
        """What is wrong with a request is told; the session lives on."""
        try:
            await self._commands.do(request)
        except Exception as error:
            if is_fault(error):
                log.error("a request of session %s failed", self._session.id, exc_info=error)
            refused = pb.RequestError(request_id=request.request_id, status=status_of(error, self._call.id))
            self._session.tell(pb.ConverseResponse(error=refused))

    async def _write(self) -> None:
        """Until the session is closed."""
        await self._say(pb.ConverseResponse(session_ready=self._commands.ready()))
        async for event in self._session.events():
            if isinstance(event, Aside):
                await self._say(event.payload)
                continue
            if isinstance(event, OutputStarted):
                self._commands.spoken(event)
            told = spell(event)
            if told is not None:
                await self._say(told)

    async def _say(self, told: pb.ConverseResponse) -> None:
        await self._call.say(told, self._services.config.max_send_s)

    async def _leave(self) -> None:
        """Raises when and why the server ends the session."""
        if await self._session.outstayed():
            longest_s = self._services.config.session.max_session_s
            raise TurnTimeout(f"A session lasts {longest_s:g} s at most; open a new one.")
        raise StageUnavailable("The server is shutting down; please connect again.", RETRY_S)
