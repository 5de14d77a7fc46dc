"""The gRPC server inside the ingress replica: its own port, shared as HTTP's is, and its own context."""

import asyncio
import contextvars
import logging
import socket

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from deployments.ingress.config import IngressConfig
from deployments.ingress.rpc.gate import Gate
from deployments.ingress.rpc.service import SpeechService
from deployments.ingress.rpc.stubs.speech_service_pb2 import DESCRIPTOR
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import add_SpeechServiceServicer_to_server
from deployments.ingress.services import Services
from deployments.ingress.sockets import CannotListen, bound
from deployments.ingress.tls import Certificate

log = logging.getLogger(__name__)

SERVICE = DESCRIPTOR.services_by_name["SpeechService"].full_name
MAX_METADATA_BYTES = 16 << 10
CUT_S = 2.0  # for calls to end after they have been told to
LAST_S = 0.1  # for their last words to be sent; who watches our health would stay for ever
Serving = health_pb2.HealthCheckResponse


class GrpcServer:
    """SpeechService, health and reflection, from start() to end(), in the event loop of the caller."""

    def __init__(self, services: Services, config: IngressConfig, certificate: Certificate | None) -> None:
        assert config.grpc_port is not None
        self._config, self._port, self._certificate = config, config.grpc_port, certificate
        self._health = services.health
        self._speech = SpeechService(services)
        self._gate = Gate(SERVICE, services, lambda: self._speech.running)
        self._told = grpc_health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The port in use; it differs from the configured one where that was 0."""
        return self._port

    @property
    def alive(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Returns once calls are accepted. Raises CannotListen.

        What answers calls is started in an empty context, as HTTP's server is (server.py).
        """
        with await bound(self._config.host, self._port, "grpc_port") as holder:
            await asyncio.create_task(self._start(holder), context=contextvars.Context())

    async def _start(self, holder: socket.socket) -> None:
        server = grpc.aio.server(interceptors=[self._gate], options=_options(self._config))
        add_SpeechServiceServicer_to_server(self._speech, server)  # type: ignore[no-untyped-call]  # protoc's
        health_pb2_grpc.add_HealthServicer_to_server(self._told, server)
        reflection.enable_server_reflection((SERVICE, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        host, self._port = holder.getsockname()[:2]
        address = f"[{host}]:{self._port}" if holder.family == socket.AF_INET6 else f"{host}:{self._port}"
        try:
            if self._certificate:
                server.add_secure_port(address, grpc.ssl_server_credentials([self._certificate.pem()]))
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListen(f"gRPC cannot listen on {address}: {error}.") from None
        await self._tell()
        await server.start()
        self._server = server
        self._tasks = [asyncio.create_task(self._follow(), name="grpc-health")]
        log.info("gRPC on %s", address)

    async def _follow(self) -> None:
        """grpc.health.v1 says what the probes say."""
        while True:
            changed = asyncio.ensure_future(self._health.changed())
            await self._tell()
            await changed

    async def _tell(self) -> None:
        serving = self._health.ready and not self._health.draining
        for name in ("", SERVICE):
            await self._told.set(name, Serving.SERVING if serving else Serving.NOT_SERVING)

    async def stop_accepting(self) -> None:
        """Connections are told to go elsewhere; calls that run go on."""
        if self._server is not None:
            longest_s = self._config.drain_wait_s + CUT_S
            self._tasks.append(asyncio.create_task(self._server.stop(longest_s), name="grpc-stop"))

    async def end(self) -> None:
        """Close what is still open; calls that were cut get CUT_S to say so."""
        server, self._server = self._server, None
        if server is not None:
            try:
                async with asyncio.timeout(CUT_S):
                    await self._health.idle()
            except TimeoutError:
                log.error("%d gRPC calls do not end; ending them", self._speech.running)
            await server.stop(LAST_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _options(config: IngressConfig) -> list[tuple[str, int]]:
    limits = config.grpc
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.max_connection_calls),
        ("grpc.keepalive_time_ms", round(1000 * limits.keepalive_s)),
        ("grpc.keepalive_timeout_ms", round(1000 * limits.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(1000 * limits.min_ping_s)),
        ("grpc.http2.max_pings_without_data", 0),
    ]
