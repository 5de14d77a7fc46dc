"""Server-sent events over plain ASGI."""

import asyncio
from collections.abc import Mapping

import pydantic_core
from starlette.types import Send

from deployments.ingress.hangup import HungUp

CONTENT_TYPE = b"text/event-stream; charset=utf-8"


def event_of(data: Mapping[str, object]) -> bytes:
    return b"data: " + pydantic_core.to_json(data) + b"\n\n"


class EventStream:
    """One response of events. A client that takes nothing for max_send_s counts as gone."""

    def __init__(self, send: Send, max_send_s: float) -> None:
        self._send, self._max_send_s = send, max_send_s

    async def start(self) -> None:
        headers = [
            (b"content-type", CONTENT_TYPE),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # or a proxy may hold the audio back
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def event(self, data: Mapping[str, object]) -> None:
        await self._write(event_of(data))

    async def comment(self, words: str) -> None:
        """Read past by clients; shows both sides that the other still lives."""
        await self._write(f": {words}\n\n".encode())

    async def done(self) -> None:
        await self._write(b"data: [DONE]\n\n", more=False)

    async def _write(self, body: bytes, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._max_send_s):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            raise HungUp from None
