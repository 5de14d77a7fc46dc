"""A request's body: read no further than allowed, then parsed no deeper than allowed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pydantic_core
from starlette.types import Receive, Scope

from chroma_models.errors import InvalidRequest, Overloaded, TooLarge
from deployments.ingress.config import IngressConfig
from deployments.ingress.errors import SlowRequest
from deployments.ingress.hangup import HungUp

_STRUCTURE = b",:[{"
_COUNT_BLOCK = 1 << 20


class BodyReader:
    """Reads bodies of at most max_body_bytes, and holds at most max_pending_bytes of them at any time."""

    def __init__(self, config: IngressConfig) -> None:
        self._config = config
        self._pending = 0

    @asynccontextmanager
    async def body(self, scope: Scope, receive: Receive, limit: int | None = None) -> AsyncIterator[bytes]:
        """The whole body of at most limit bytes (None: max_body_bytes), counted as pending until the block ends.

        Raises TooLarge from Content-Length alone where it is told, else at the first byte too many; Overloaded;
        SlowRequest; HungUp.
        """
        limit = self._config.max_body_bytes if limit is None else limit
        told = _content_length(scope)
        if told is not None and told > limit:
            raise _too_large(limit)
        held = 0
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise HungUp
                    piece: bytes = event.get("body", b"")
                    if held + len(piece) > limit:
                        raise _too_large(limit)
                    if self._pending + len(piece) > self._config.max_pending_bytes:
                        raise Overloaded("Too many large requests are being read; please try again.", 1.0)
                    held += len(piece)
                    self._pending += len(piece)
                    parts.append(piece)
                    if not event.get("more_body", False):
                        break
            body = b"".join(parts)
            parts.clear()
            yield body
        except TimeoutError:
            raise SlowRequest(
                f"The request body did not arrive within {self._config.body_timeout_s:g} s; send it faster or smaller."
            ) from None
        finally:
            self._pending -= held


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes; send shorter or compressed audio.")


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


def parse_object(body: bytes, config: IngressConfig) -> dict[str, Any]:
    """A JSON object of bounded structure: its values are counted before any object is made of them.

    Raises InvalidRequest or TooLarge. Meant for a worker thread.
    """
    if _tokens(body) > config.max_json_tokens:
        raise TooLarge("The request holds too many JSON values; send a shorter conversation.")
    try:
        parsed = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    check_depth(parsed, config)
    return parsed


def check_depth(parsed: dict[str, Any], config: IngressConfig) -> None:
    """Raises InvalidRequest."""
    layer: list[Any] = [parsed]
    for _ in range(config.max_json_depth):
        layer = [inner for outer in layer for inner in _inside(outer)]
    if layer:
        raise InvalidRequest(f"The request is nested deeper than {config.max_json_depth} levels.")


def _tokens(body: bytes) -> int:
    """Commas, colons and opening brackets, those in strings too. numpy counts without holding the interpreter."""
    count = 0
    for start in range(0, len(body), _COUNT_BLOCK):
        block = np.frombuffer(body, np.uint8, min(_COUNT_BLOCK, len(body) - start), start)
        count += sum(int(np.count_nonzero(block == mark)) for mark in _STRUCTURE)
    return count


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    """The containers directly in a container."""
    return [item for item in (value.values() if isinstance(value, dict) else value) if isinstance(item, dict | list)]
