"""GET /v1/realtime: who may open a session is decided, and answered with an HTTP status, before the upgrade."""

import logging

import pydantic_core
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from chroma_models.errors import Overloaded, Unauthenticated, UnknownModel
from deployments.ingress.callers import Caller
from deployments.ingress.errors import body_of, headers_of, is_fault, wire_of
from deployments.ingress.log_context import REQUEST, TENANT
from deployments.ingress.rate_headers import rate_headers
from deployments.ingress.realtime.commands import Commands
from deployments.ingress.realtime.connection import REVOKED, Connection
from deployments.ingress.reply_span import PARENT, TRACEPARENT
from deployments.ingress.request_id import HEADER, request_id
from deployments.ingress.services import Services

log = logging.getLogger(__name__)

PROTOCOL = "realtime"  # the subprotocol that browsers ask for; a key may come as another
KEY_PROTOCOL = "openai-insecure-api-key."


class Realtime:
    """The endpoint, as an ASGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        name, told, permit = request_id(""), list[tuple[bytes, bytes]](), None
        try:
            if self._open >= self._services.config.realtime.max_sessions:
                raise Overloaded("Too many sessions are open; please try again.", 1.0)
            REQUEST.set(name)
            PARENT.set(websocket.headers.get(TRACEPARENT, ""))
            caller = await self._caller(scope)
            TENANT.set(caller.tenant)
            caller.check_scope("speech")
            self._check_model(websocket.query_params.get("model"))
            permit = await self._services.permit(caller)
            told = await rate_headers(self._services, permit)
            commands = await Commands.open(self._services, caller)
        except BaseException as error:
            if permit is not None:
                permit.give_back()
            if not isinstance(error, Exception):
                raise
            self._services.refusals.count("realtime", error)
            await websocket.send_denial_response(_denial(error, name))
            return
        connection = Connection(websocket, self._services, commands.session, commands)
        self._open += 1
        try:
            with self._services.health.request():
                asked = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
                async with permit:
                    await websocket.accept(asked, [(HEADER.encode(), name.encode()), *told])
                    log.info("request %s: session %s opened", name, commands.session.id)
                    await connection.run()
        except Unauthenticated:
            await connection.close(REVOKED)
        finally:
            self._open -= 1
            log.info("request %s: session %s closed", name, commands.session.id)

    async def _caller(self, scope: Scope) -> Caller:
        """Raises Unauthenticated."""
        for name in scope["subprotocols"]:
            if name.startswith(KEY_PROTOCOL):
                return await self._services.callers.of_key(name.removeprefix(KEY_PROTOCOL))
        return await self._services.callers.of_scope(scope)

    def _check_model(self, model: str | None) -> None:
        known = self._services.config.model_id
        if model is not None and model != known:
            raise UnknownModel(f"The model '{model[:64]}' does not exist; this server has '{known}'.", "model")


def _denial(error: Exception, name: str) -> Response:
    if is_fault(error):
        log.error("request %s failed", name, exc_info=error)
    body = pydantic_core.to_json(body_of(error, name))
    headers = {HEADER: name, **headers_of(error)}
    return Response(body, wire_of(error).http, headers, "application/json")
