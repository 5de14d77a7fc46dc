"""The HTTP server inside the ingress replica: its own sockets, its own context, its own drain.

Ports are shared by SO_REUSEPORT, so that two replicas of a node, old and new of a rolling update among them, listen at
once and the kernel spreads connections over them.
"""

import asyncio
import contextvars
import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from chroma_models.errors import ChromaError
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig

log = logging.getLogger(__name__)

POLL_S = 0.02
CUT_S = 2.0  # for requests to end after they have been told to


class CannotListen(ChromaError):
    """The address cannot be had; the message says why."""

    code = "cannot_listen"


class HttpServer:
    """Serves an application from start() to drain(), in the event loop of its caller."""

    def __init__(self, app: IngressApp, config: IngressConfig) -> None:
        self._app, self._config = app, config
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._server = _Quiet(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws_per_message_deflate=False,
                ws_max_size=config.realtime.max_event_bytes,
                ws_ping_interval=config.realtime.ping_interval_s,
                ws_ping_timeout=config.realtime.ping_timeout_s,
                backlog=config.backlog,
                timeout_keep_alive=config.keepalive_s,
                timeout_graceful_shutdown=round(CUT_S),
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
        self._socket = await listen(self._config.host, self._config.http_port, self._config.backlog)
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

    async def drain(self) -> None:
        """Say so, linger, stop accepting, let live requests end, cut the rest. Does nothing the second time."""
        if self._serving is None or self._app.health.draining:
            return
        self._app.health.draining = True
        await asyncio.sleep(self._config.drain_linger_s)
        for listener in self._server.servers:
            listener.close()
        if self._socket is not None:
            self._socket.close()
        self._app.health.leave()
        idle = asyncio.create_task(self._app.health.idle())
        await asyncio.wait(
            {idle, self._serving}, timeout=self._config.drain_wait_s, return_when=asyncio.FIRST_COMPLETED
        )
        idle.cancel()
        self._app.health.cut()
        self._server.should_exit = True
        await asyncio.wait({self._serving}, timeout=2 * CUT_S)
        if not self._serving.done():
            log.error("the HTTP server does not end; leaving it behind")
        self._app.close()


class _Quiet(uvicorn.Server):
    """uvicorn without its signal handlers: the process belongs to Ray."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket that shares its port with others of its kind. Raises CannotListen."""
    where = f"{host}:{port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise CannotListen(f"The address {where} is not one of this machine: {error.strerror}.") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"Port {port} is taken by another program; choose another http_port.") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise CannotListen(f"Listening on {where} is not permitted; choose a port of 1024 or above.") from None
        raise CannotListen(f"Cannot listen on {where}: {error.strerror}.") from None
    return listener
