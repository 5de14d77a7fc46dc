"""gRPC's door: health, reflection, keys, TLS, and how it closes."""

import asyncio
import socket
import ssl
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from chroma_models.errors import InvalidRequest
from deployments.ingress.config import IngressConfig
from deployments.ingress.rpc.server import SERVICE
from deployments.ingress.rpc.stubs.speech_service_pb2 import GenerateRequest
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from deployments.ingress.sockets import CannotListen
from deployments.ingress.tls import Certificate
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import until

Serving = health_pb2.HealthCheckResponse


def channel(service: Service) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}")


async def test_health_follows_the_probes(start: Start) -> None:
    service = await start(drain_linger_s=0.3)
    async with channel(service) as to:
        health = health_pb2_grpc.HealthStub(to)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        assert (await health.Check(request)).status == Serving.NOT_SERVING
        seen = []

        async def watch() -> None:
            async for told in health.Watch(request):
                seen.append(told.status)

        watching = asyncio.create_task(watch())
        service.app.health.ready = True
        await until(lambda: Serving.SERVING in seen)
        assert (await health.Check(request)).status == Serving.SERVING
        await service.server.drain()
        with pytest.raises(grpc.aio.AioRpcError):
            await watching
        assert seen[-2:] == [Serving.SERVING, Serving.NOT_SERVING]
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Check(request, timeout=1)


async def test_reflection_tells_the_contract(service: Service) -> None:
    def look() -> list[str]:
        with grpc.insecure_channel(f"127.0.0.1:{service.server.grpc_port}") as to:
            database = ProtoReflectionDescriptorDatabase(to)
            assert database.FindFileContainingSymbol(SERVICE).name == "chroma/v1/speech_service.proto"
            return list(database.get_services())

    assert SERVICE in await asyncio.to_thread(look)


async def test_who_has_no_key_is_refused_before_anything_is_read(start: Start) -> None:
    service = await start(auth=True)
    key = await service.key()
    async with channel(service) as to:
        health = health_pb2_grpc.HealthStub(to)
        await health.Check(health_pb2.HealthCheckRequest())  # open to all
        for metadata in ((), (("authorization", "Bearer sk-wrong"),), (("authorization", key),)):
            call = SpeechServiceStub(to).Generate(GenerateRequest(), metadata=(*metadata, ("x-request-id", "r-1")))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            status = rpc_status.from_call(caught.value)
            reason, request = ErrorInfo(), RequestInfo()
            assert status.details[0].Unpack(reason)
            assert status.details[1].Unpack(request)
            assert (reason.reason, request.request_id) == ("INVALID_API_KEY", "r-1")
            # a call whose messages never come is refused all the same
            silent = SpeechServiceStub(to).Converse(metadata=metadata)
            assert await silent.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_two_servers_share_the_port_and_it_outlives_one(start: Start) -> None:
    one = await start()
    two = await start(grpc_port=one.server.grpc_port)
    assert one.server.grpc_port == two.server.grpc_port
    await one.server.drain()
    for _ in range(5):
        async with channel(two) as to:
            await health_pb2_grpc.HealthStub(to).Check(health_pb2.HealthCheckRequest(), timeout=10)


async def test_a_port_of_another_program_is_a_clear_error_and_nothing_stays_open(start: Start) -> None:
    with socket.socket() as other, socket.socket() as http:
        for one in (other, http):
            one.bind(("127.0.0.1", 0))
        other.listen()
        taken, free = other.getsockname()[1], http.getsockname()[1]
        http.close()
        with pytest.raises(CannotListen, match=f"Port {taken} is taken by another program; choose another grpc_port"):
            await start(http_port=free, grpc_port=taken)
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", free)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and cert.pem with key.pem for the loopback."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    cert = ca.issue_cert("127.0.0.1", "localhost")
    cert.private_key_pem.write_to_path(folder / "key.pem")
    for blob in cert.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(folder / "other.pem")
    return folder


async def test_both_doors_speak_tls_where_a_certificate_is_given(start: Start, authority: Path) -> None:
    service = await start(tls_cert_file=authority / "cert.pem", tls_key_file=authority / "key.pem")
    trusted = ssl.create_default_context(cafile=authority / "ca.pem")
    async with httpx.AsyncClient(verify=trusted, trust_env=False) as http:
        assert (await http.get(f"https://127.0.0.1:{service.server.port}/healthz")).status_code == 200
        with pytest.raises(httpx.TransportError):
            await http.get(f"http://127.0.0.1:{service.server.port}/healthz")
    credentials = grpc.ssl_channel_credentials((authority / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{service.server.grpc_port}", credentials) as to:
        await health_pb2_grpc.HealthStub(to).Check(health_pb2.HealthCheckRequest(), timeout=10)
    async with channel(service) as to:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(to).Check(health_pb2.HealthCheckRequest(), timeout=10)


@pytest.mark.parametrize(
    ("cert", "key", "saying"),
    [
        ("cert.pem", None, "belong together"),
        (None, "key.pem", "belong together"),
        ("none.pem", "key.pem", "none.pem cannot be read"),
        ("cert.pem", "other.pem", "is not that of the certificate"),
        ("key.pem", "cert.pem", "hold no certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_a_sentence(
    authority: Path, cert: str | None, key: str | None, saying: str
) -> None:
    files = {"tls_cert_file": cert and authority / cert, "tls_key_file": key and authority / key}
    with pytest.raises(InvalidRequest, match=saying):
        Certificate.of(IngressConfig.model_validate(files))
