"""The real servers on a free ports of the loopback, before a scripted speaker."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from chroma_models.types import Sampling
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.doors import Doors
from deployments.ingress.tenants import NewKey, TenantChange, make_key
from tests.deployments.ingress.postgres import new_database, server
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

    async def key(self, tenant: str = "acme", **wanted: Any) -> str:
        """A new key of a tenant, who is made where there is none; changes to its share, and the key's own wishes."""
        services = self.app.services
        of_key = {name: wanted.pop(name) for name in ("scopes", "expires_in_s") if name in wanted}
        if tenant not in {known.id for known in await services.tenants.tenants()}:
            await services.tenants.add(tenant, TenantChange(**wanted).said())
        elif wanted:
            await services.tenants.change(tenant, TenantChange(**wanted).said())
        return (await make_key(services.tenants, services.key_hash(), tenant, NewKey(**of_key)))[1]


Start = Callable[..., Awaitable[Service]]


@pytest.fixture
def database(tmp_path: Path) -> str:
    """An empty one, for the test alone."""
    return f"sqlite:///{tmp_path / 'voices.db'}"


@pytest.fixture
async def start(database: str) -> AsyncIterator[Start]:
    """Starts a service with some settings changed."""
    async with AsyncExitStack() as stack:

        async def begin(speaker: Scripted | None = None, **settings: Any) -> Service:
            quick = {"http_port": 0, "grpc_port": 0, "drain_linger_s": 0.0, "drain_quiet_s": 0.0, "drain_wait_s": 1.0}
            secret = {"key_secret": "of the tests"} if database.startswith("postgresql") else {}
            settings = {"auth": False, "database_url": database, **secret, **quick, **settings}
            config = IngressConfig.model_validate(settings)
            speaker = speaker or Scripted()
            app = IngressApp(speaker, config, DEFAULTS)
            doors = Doors(app, config)
            await doors.start()
            stack.push_async_callback(doors.drain)
            url = f"http://127.0.0.1:{doors.port}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20, trust_env=False))
            client = AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, http_client=http)
            return Service(speaker, app, doors, http, client)

        yield begin


@pytest.fixture
async def direct(database: str) -> AsyncIterator[Service]:
    """The application without its server: quicker, for what needs no socket."""
    config = IngressConfig(auth=False, http_port=0, grpc_port=None, database_url=database)
    speaker = Scripted()
    app = IngressApp(speaker, config, DEFAULTS)
    await app.open()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingress") as http:
        client = AsyncOpenAI(base_url="http://ingress/v1", api_key="unused", max_retries=0, http_client=http)
        yield Service(speaker, app, Doors(app, config), http, client)
    await app.close()


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The socket's folder of a PostgreSQL server."""
    with server() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without a schema, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'voices.db'}"
    return new_database(request.getfixturevalue("postgres"), f"test_{uuid.uuid4().hex}")
