"""Realtime clients before the real server and a scripted speaker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client

Dial = Callable[..., Awaitable[Client]]


@pytest.fixture
async def dial(start: Start) -> AsyncIterator[Dial]:
    """Opens connections that have read session.created; to a service of their own, or to one that is given."""
    async with AsyncExitStack() as stack:

        async def connect(service: Service | None = None, key: str = "unused", **settings: Any) -> Client:
            client = await Client.connect(service or await start(**settings), key)
            stack.push_async_callback(client.close)
            return client

        yield connect
