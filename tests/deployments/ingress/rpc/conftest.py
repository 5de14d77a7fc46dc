"""gRPC clients before the real server and a scripted speaker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import grpc
import pytest

from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments.ingress.conftest import Service

Dial = Callable[[Service], Awaitable[SpeechServiceStub]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Opens connections."""
    async with AsyncExitStack() as stack:

        async def connect(service: Service) -> SpeechServiceStub:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}")
            return SpeechServiceStub(await stack.enter_async_context(channel))

        yield connect


@pytest.fixture
async def speech(service: Service, dial: Dial) -> SpeechServiceStub:
    return await dial(service)
