"""uvicorn's HTTP protocol, with the bounds it has not: on a request's head, on the time for it, on connections."""

import asyncio
from typing import Any

import pydantic_core
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from chroma_models.errors import ChromaError, InvalidRequest, Overloaded
from deployments.ingress.config import IngressConfig
from deployments.ingress.errors import HeadersTooLarge, SlowRequest, body_of, headers_of, wire_of
from deployments.ingress.request_id import HEADER, request_id


class BoundedHttp(HttpToolsProtocol):
    """One connection. Refused before the application hears of it, in the words the application has for its errors."""

    def __init__(self, limits: IngressConfig, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._head_bytes = 0  # of the request whose head is still coming
        self._heading = True
        self._deadline: asyncio.TimerHandle | None = None
        self._refusal: ChromaError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(Overloaded("Too many connections are open; please try again.", 1.0))
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._heading and self._deadline is None:
            self._expect_head()
        super().data_received(data)
        if self._heading and self._refusal is None:
            self._head_bytes += len(data)  # a header is parsed only once it is whole
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._heading = 0, True

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if len(self.headers) >= self._limits.max_headers:
            self._refusal = HeadersTooLarge(f"A request has at most {self._limits.max_headers} headers.")
            raise self._refusal  # the parser hands it to data_received, which answers
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._heading = True
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Called where the bytes are no HTTP, too."""
        self._refuse(self._refusal or InvalidRequest("This is no HTTP request that can be read."))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.max_header_bytes:
            self._refusal = self._too_large()
            raise self._refusal

    def _too_large(self) -> HeadersTooLarge:
        most = self._limits.max_header_bytes
        return HeadersTooLarge(f"The request line and its headers take more than {most} bytes; send less of them.")

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self._limits.header_timeout_s, self._too_slow)

    def _head_came(self) -> None:
        self._heading = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._refuse(SlowRequest(f"The request's headers did not arrive within {self._limits.header_timeout_s:g} s."))

    def _refuse(self, error: ChromaError) -> None:
        """The last that is said on this connection."""
        self._refusal = error
        self._head_came()
        if self.transport.is_closing():
            return
        named = request_id("")
        body = pydantic_core.to_json(body_of(error, named))
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            HEADER: named,
            **headers_of(error),
        }
        lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
        self.transport.write(b"".join([STATUS_LINE[wire_of(error).http], *lines, b"\r\n", body]))
        self.transport.close()
