"""The HTTP server inside the ingress replica: its own socket and its own context.

Its port is shared by SO_REUSEPORT, so that two replicas of a node, old and new of a rolling update among them, listen
at once and the kernel spreads connections over them.
"""

import asyncio
import contextvars
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from deployments.ingress.bounded_http import BoundedHttp
from deployments.ingress.config import IngressConfig
from deployments.ingress.sockets import CannotListen, listen
from deployments.ingress.tls import Certificate

log = logging.getLogger(__name__)

POLL_S = 0.02
CUT_S = 2.0  # for requests to end after they have been told to


class HttpServer:
    """Serves an application from start() to end(), in the event loop of its caller."""

    def __init__(self, app: ASGIApp, config: IngressConfig, certificate: Certificate | None = None) -> None:
        self._config = config
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._server = _Quiet(
            uvicorn.Config(
                app,
                lifespan="off",
                http=partial(BoundedHttp, config),  # type: ignore[arg-type]  # called as a class is
                log_config=None,
                log_level="info",  # below it handshakes are told with all their headers
                access_log=False,
                server_header=False,
                ws_per_message_deflate=False,
                ws_max_size=config.realtime.max_event_bytes,
                ws_ping_interval=config.realtime.ping_interval_s,
                ws_ping_timeout=config.realtime.ping_timeout_s,
                backlog=config.backlog,
                timeout_keep_alive=config.keepalive_s,
                timeout_graceful_shutdown=round(CUT_S),
                ssl_certfile=certificate.cert_file if certificate else None,
                ssl_keyfile=certificate.key_file if certificate else None,
            )
        )

    @property
    def port(self) -> int:
        """The port in use; it differs from the configured one where that was 0."""
        assert self._socket is not None, "the server has not been started"
        return int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        return self._serving is not None and not self._serving.done()

    async def start(self) -> None:
        """Returns once connections are accepted. Raises CannotListen, or what uvicorn died of.

        The task gets an empty context: one that inherits a request of Serve would make every turn its child, and
        cancelling one child cancels its siblings.
        """
        config = self._config
        give_up_s = 2 * config.max_send_s  # after the application has
        self._socket = await listen(config.host, config.http_port, config.backlog, config.send_buffer_bytes, give_up_s)
        self._serving = asyncio.create_task(
            self._server.serve(sockets=[self._socket]), name="http", context=contextvars.Context()
        )
        while not self._server.started:
            if self._serving.done():
                self._socket.close()
                self._serving.result()
                raise CannotListen("The HTTP server ended while it was starting.")
            await asyncio.sleep(POLL_S)
        log.info("listening on %s:%d", self._config.host, self.port)

    def stop_accepting(self) -> None:
        """Connections that are open go on."""
        for listener in self._server.servers:
            listener.close()
        if self._socket is not None:
            self._socket.close()

    async def ended(self) -> None:
        """Returns when the server has ended, by itself or because it was told to."""
        if self._serving is not None:
            await asyncio.wait({self._serving})

    async def end(self) -> None:
        """Close what is still open. Live requests get CUT_S."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving}, timeout=2 * CUT_S)
            if not self._serving.done():
                log.error("the HTTP server does not end; leaving it behind")


class _Quiet(uvicorn.Server):
    """uvicorn without its signal handlers: the process belongs to Ray."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
