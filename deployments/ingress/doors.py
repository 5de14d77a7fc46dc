"""Both servers of a replica, from start to drain."""

import asyncio
import logging

from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.rpc.server import GrpcServer
from deployments.ingress.server import HttpServer
from deployments.ingress.tls import Certificate

log = logging.getLogger(__name__)


class Doors:
    """HTTP and WebSocket on one port, gRPC on another. They open together, and close together."""

    def __init__(self, app: IngressApp, config: IngressConfig) -> None:
        """Raises InvalidRequest where the certificate cannot be used."""
        self._app, self._config = app, config
        certificate = Certificate.of(config)
        self._http = HttpServer(app, config, certificate)
        self._grpc = None if config.grpc_port is None else GrpcServer(app.services, config, certificate)
        self._started = False

    @property
    def port(self) -> int:
        """HTTP's port in use; it differs from the configured one where that was 0."""
        return self._http.port

    @property
    def grpc_port(self) -> int | None:
        """gRPC's port in use; None where it is switched off."""
        return self._grpc.port if self._grpc else None

    @property
    def alive(self) -> bool:
        return self._http.alive and (self._grpc is None or self._grpc.alive)

    async def start(self) -> None:
        """Returns once both accept calls.

        Raises CannotListen, UnusableDatabase, or what a server died of; then neither is open.
        """
        try:
            await self._app.open()
            await self._http.start()
            if self._grpc:
                await self._grpc.start()
        except BaseException:
            await self._http.end()
            await self._app.close()
            raise
        self._started = True

    async def drain(self) -> None:
        """Say so, linger, stop accepting, let live calls end, cut the rest. Does nothing the second time."""
        health = self._app.health
        if not self._started or health.draining:
            return
        health.draining = True
        await asyncio.sleep(self._config.drain_linger_s)
        self._http.stop_accepting()
        if self._grpc:
            await self._grpc.stop_accepting()
        health.leave()
        idle = asyncio.create_task(health.idle())
        ended = asyncio.create_task(self._http.ended())
        await asyncio.wait({idle, ended}, timeout=self._config.drain_wait_s, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        ended.cancel()
        health.cut()
        await asyncio.gather(self._http.end(), *([self._grpc.end()] if self._grpc else []))
        await self._app.close()
