"""The outermost layer of every HTTP request: its id, its headers, its last resort, and the rest of its body."""

import asyncio
import logging

import pydantic_core
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chroma_models.errors import StageUnavailable
from deployments.ingress.config import IngressConfig
from deployments.ingress.errors import body_of, headers_of, is_fault, wire_of
from deployments.ingress.hangup import HungUp
from deployments.ingress.health import Health
from deployments.ingress.log_context import REQUEST
from deployments.ingress.reply_span import PARENT, TRACEPARENT
from deployments.ingress.request_id import HEADER, request_id
from deployments.ingress.sse import CONTENT_TYPE, event_of

log = logging.getLogger(__name__)

# What is answered is data: no browser shall guess another type, keep it, or show it inside a page. The web page has
# headers of its own, which count before these.
GUARDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]


class Edge:
    """Wraps an ASGI application; anything but HTTP passes through."""

    def __init__(self, inner: ASGIApp, config: IngressConfig, health: Health) -> None:
        self._inner, self._config, self._health = inner, config, health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        with self._health.request():
            await _Exchange(self._config, self._health, scope, receive, send).run(self._inner)


class _Exchange:
    """One request and its response."""

    def __init__(self, config: IngressConfig, health: Health, scope: Scope, receive: Receive, send: Send) -> None:
        self._discard_s, self._health = config.discard_s, health
        self._receive, self._send = receive, send
        self._began = asyncio.get_running_loop().time()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self.request_id = request_id(headers.get(HEADER.encode(), ""))
        self._parent = headers.get(TRACEPARENT.encode(), "")
        self._told: list[tuple[bytes, bytes]] = []  # headers that an endpoint adds to whatever is answered
        self._scope: Scope = {**scope, "request_id": self.request_id, "answer_headers": self._told}
        self._body_left = b"transfer-encoding" in headers or headers.get(b"content-length", "0") != "0"
        self._waits = "expect" in {name.decode() for name in headers}  # for a 100 Continue, which the first read sends
        self._status = 0  # until the response has begun
        self._streaming = False

    async def run(self, inner: ASGIApp) -> None:
        REQUEST.set(self.request_id)
        PARENT.set(self._parent)
        try:
            await inner(self._scope, self.receive, self.send)
        except HungUp:
            log.info("request %s: the client hung up", self.request_id)
        except asyncio.CancelledError:
            if not self._health.uncancel():
                raise
            await self._last_resort(StageUnavailable("The server is shutting down; please try again.", 1.0))
        except Exception as error:
            await self._last_resort(error)
        took_ms = (asyncio.get_running_loop().time() - self._began) * 1000
        path = self._scope.get("raw_path", b"").decode("latin-1")  # its line ends are still spelled
        log.info("request %s: %s %s in %.0f ms", self.request_id, path, self._status or "-", took_ms)

    async def _last_resort(self, error: Exception) -> None:
        """The error as the response; in a stream that has begun, as its last event."""
        if is_fault(error):
            log.error("request %s failed", self.request_id, exc_info=error)
        told = body_of(error, self.request_id)
        if self._streaming:
            await self.send({"type": "http.response.body", "body": event_of(told), "more_body": False})
        elif not self._status:
            body = pydantic_core.to_json(told)
            headers = {"content-type": "application/json", "content-length": str(len(body)), **headers_of(error)}
            start = {"type": "http.response.start", "status": wire_of(error).http}
            await self.send({**start, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]})
            await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def receive(self) -> Message:
        self._waits = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._streaming = (b"content-type", CONTENT_TYPE) in message.get("headers", [])
            said = {name for name, _ in message.get("headers", [])}
            ours = [header for header in self._headers() if header[0] not in said]
            message = {**message, "headers": [*message.get("headers", []), *ours]}
        elif not message.get("more_body", False) and self._body_left:
            await self._send({**message, "more_body": True})
            await self._discard()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        took_ms = (asyncio.get_running_loop().time() - self._began) * 1000
        headers = [
            (HEADER.encode(), self.request_id.encode()),
            (b"x-system-fingerprint", self._health.system_fingerprint.encode()),
            (b"openai-processing-ms", b"%d" % round(took_ms)),
            *self._told,
            *GUARDS,
        ]
        if self._body_left or self._health.draining:
            headers.append((b"connection", b"close"))
        return headers

    async def _discard(self) -> None:
        """Read and drop what the client still sends: closing at once could lose the answer on its way."""
        if self._waits:
            return
        try:
            async with asyncio.timeout(self._discard_s):
                while self._body_left:
                    await self.receive()
        except TimeoutError:
            log.info("request %s: the client goes on sending a refused body", self.request_id)
