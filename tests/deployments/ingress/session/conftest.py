"""A session before a scripted speaker, without any protocol."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from deployments.ingress.callers import Caller
from deployments.ingress.config import IngressConfig
from deployments.ingress.services import Services
from deployments.ingress.session.events import Event, ResponseDone
from deployments.ingress.session.items import Item, Words
from deployments.ingress.session.session import Session
from deployments.ingress.session.settings import SessionSettings
from tests.deployments.ingress.conftest import DEFAULTS
from tests.deployments.ingress.scripted import Scripted, until

E = TypeVar("E")


@dataclass
class Talk:
    """A session, and everything it has told so far."""

    session: Session
    speaker: Scripted
    services: Services
    told: list[Event] = field(default_factory=list)
    reading: bool = True

    async def listen(self) -> None:
        await until(lambda: self.reading)
        async for event in self.session.events():
            self.told.append(event)
            await until(lambda: self.reading)

    def say(self, text: str, item_id: str = "") -> None:
        self.session.add_item(Item(item_id or f"said_{len(self.session.items)}", "user", (Words(text),)))

    def all_of(self, kind: type[E]) -> list[E]:
        return [event for event in self.told if isinstance(event, kind)]

    async def one_of(self, kind: type[E], count: int = 1) -> E:
        """The count-th event of a kind, once it has come."""
        await until(lambda: len(self.all_of(kind)) >= count)
        return self.all_of(kind)[count - 1]

    async def answered(self, text: str = "hello") -> ResponseDone:
        done = len(self.all_of(ResponseDone))
        self.say(text)
        self.session.respond()
        return await self.one_of(ResponseDone, done + 1)


Begin = Callable[..., Talk]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Opens sessions; a dict for `config` changes the server's."""
    async with AsyncExitStack() as stack:

        def open_one(config: dict[str, Any] | None = None, beside: Talk | None = None, **settings: Any) -> Talk:
            speaker = beside.speaker if beside else Scripted()
            services = (
                beside.services if beside else Services(speaker, IngressConfig(auth=False, **(config or {})), DEFAULTS)
            )
            chosen = SessionSettings(**{"turn_detection": None, **settings})
            talk = Talk(Session(services, Caller("public", "open"), chosen), speaker, services)
            listening = asyncio.create_task(talk.listen())

            async def end() -> None:
                talk.reading = True
                await talk.session.close()
                await listening
                await speaker.all_closed()
                await services.close()

            stack.push_async_callback(end)
            return talk

        yield open_one


@pytest.fixture
async def talk(begin: Begin) -> Talk:
    return begin()
