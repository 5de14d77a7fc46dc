"""A Realtime client that keeps everything it is told, and checks each event against OpenAI's own types."""

import asyncio
import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import websockets
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

from tests.deployments.ingress.conftest import Service
from tests.deployments.ingress.scripted import until

Json = dict[str, Any]
OURS = {"chroma", "id", "object", "expires_at"}  # the session's, which the SDK types elsewhere, and our extension
SERVER_EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def _unknown(value: Any) -> set[str]:
    """Names of fields, however deep, that the SDK's types do not have."""
    if isinstance(value, list):
        return set().union(*map(_unknown, value))
    if not isinstance(value, BaseModel):
        return set()
    fields = [getattr(value, name) for name in type(value).model_fields]
    return set(value.model_extra or ()).union(*map(_unknown, fields))


@dataclass
class Client:
    socket: websockets.ClientConnection
    service: Any = None  # whom the test may look behind, where it runs in this process
    told: list[Json] = field(default_factory=list)
    closed: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, service: Service, key: str = "unused") -> "Client":
        client = await cls.to(f"ws://127.0.0.1:{service.server.port}", key)
        client.service = service
        return client

    @classmethod
    async def to(cls, server: str, key: str = "unused", headers: Mapping[str, str] | None = None) -> "Client":
        url = f"{server}/v1/realtime?model=chroma"
        told = {"authorization": f"Bearer {key}", **(headers or {})}
        client = cls(await websockets.connect(url, additional_headers=told, max_size=None))
        client.closed = asyncio.create_task(client._read())
        await client.one("session.created")
        return client

    async def _read(self) -> None:
        async for text in self.socket:
            event = json.loads(text)
            known = SERVER_EVENTS.validate_python(event, strict=True)
            assert _unknown(known) <= OURS, event
            self.told.append(event)

    async def close(self) -> None:
        """Raises what was wrong with an event."""
        await self.socket.close()
        assert self.closed is not None
        with suppress(websockets.ConnectionClosedError):
            await self.closed

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def say(self, text: str, **item: Any) -> None:
        content = [{"type": "input_text", "text": text}]
        await self.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content, **item}
        )

    async def append(self, pcm: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    def all(self, kind: str) -> list[Json]:
        return [event for event in self.told if event["type"] == kind]

    async def one(self, kind: str, count: int = 1) -> Json:
        """The count-th event of a kind, once it has come."""

        def come() -> bool:
            if self.closed is not None and self.closed.done():
                self.closed.result()  # says what was wrong
            return len(self.all(kind)) >= count

        await until(come)
        return self.all(kind)[count - 1]

    async def answered(self, text: str = "hello") -> Json:
        """The response of the next turn."""
        done = len(self.all("response.done"))
        await self.say(text)
        await self.send("response.create")
        response: Json = (await self.one("response.done", done + 1))["response"]
        return response

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.told]

    def audio(self, response_id: str) -> bytes:
        deltas = [e["delta"] for e in self.all("response.output_audio.delta") if e["response_id"] == response_id]
        return b"".join(map(base64.b64decode, deltas))
