"""The real servers on a free ports of the loopback, before a scripted speaker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from chroma_models.types import Sampling
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.doors import Doors
from tests.deployments.ingress.scripted import Scripted

DEFAULTS = Sampling(seed=0, temperature=0.0, top_k=50)


@dataclass
class Service:
    speaker: Scripted
    app: IngressApp
    server: Doors
    http: httpx.AsyncClient
    openai: AsyncOpenAI

    async def ask(self, **changes: Any) -> httpx.Response:
        """A small valid request, but for the changes."""
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], **changes}
        return await self.http.post("/v1/chat/completions", json=body)


Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a service with some settings changed."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Service:
            quick = {"http_port": 0, "grpc_port": 0, "drain_linger_s": 0.0, "drain_wait_s": 1.0, **settings}
            config = IngressConfig.model_validate(quick)
            speaker = Scripted()
            app = IngressApp(speaker, config, DEFAULTS)
            server = Doors(app, config)
            await server.start()
            stack.push_async_callback(server.drain)
            url = f"http://127.0.0.1:{server.port}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20, trust_env=False))
            client = AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, http_client=http)
            return Service(speaker, app, server, http, client)

        yield begin


@pytest.fixture
async def direct() -> AsyncIterator[Service]:
    """The application without its server: quicker, for what needs no socket."""
    config = IngressConfig(http_port=0, grpc_port=None)
    speaker = Scripted()
    app = IngressApp(speaker, config, DEFAULTS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingress") as http:
        client = AsyncOpenAI(base_url="http://ingress/v1", api_key="unused", max_retries=0, http_client=http)
        yield Service(speaker, app, Doors(app, config), http, client)
    app.close()


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()
