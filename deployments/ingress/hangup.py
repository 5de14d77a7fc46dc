"""Work that ends when its client does."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


class HungUp(Exception):
    """The client has gone. Never told to anybody, for nobody is left to tell."""


async def until_hangup(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run work, and cancel it as soon as the client disconnects; call it once the body has been read.

    Both run in tasks of their own, so that work's cleanup is cancelled once and not again and again.
    Raises what work raises, or HungUp.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_hangup(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        hung_up = not working.done()
        if hung_up:
            working.cancel()
        await asyncio.wait({working, watching})
    if working.cancelled():
        raise HungUp
    working.result()
    if hung_up:
        raise HungUp


async def _hangup(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
