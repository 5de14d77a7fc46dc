"""One call: who makes it, under which id, and how it ends when it fails."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from chroma_models.errors import StageUnavailable, TurnTimeout
from deployments.ingress.callers import Caller
from deployments.ingress.errors import is_fault
from deployments.ingress.health import Health
from deployments.ingress.log_context import REQUEST, TENANT
from deployments.ingress.patience import Patience
from deployments.ingress.permits import Permit
from deployments.ingress.reply_span import PARENT, TRACEPARENT
from deployments.ingress.request_id import HEADER, request_id
from deployments.ingress.rpc.status import ending, status_of

log = logging.getLogger(__name__)

LAST_WORDS_S = 2.0  # for the status to be sent

Context: TypeAlias = grpc.aio.ServicerContext
Metadata = Sequence[tuple[str, Any]]

PERMIT: ContextVar[Permit] = ContextVar("permit")  # set by the gate, in the task that goes on to answer the call


class Call:
    """A call that was let in."""

    def __init__(self, call_id: str, caller: Caller, context: Context) -> None:
        self.id, self.caller, self.context = call_id, caller, context
        self._patience, self._clock = Patience(), asyncio.get_running_loop().time

    async def say(self, told: Message, max_send_s: float) -> None:
        """Raises TurnTimeout where the client takes nothing for so long."""
        try:
            await self._patience.until(self._clock() + max_send_s, self.context.write(told))
        except TimeoutError:
            raise TurnTimeout(f"Nothing was read for {max_send_s:g} s.") from None

    def close(self) -> None:
        self._patience.close()


@asynccontextmanager
async def answering(context: Context, permit: Permit, health: Health) -> AsyncIterator[Call]:
    """Counts the call and holds its permit while the block runs; what that raises becomes the status it ends with."""
    call = Call(id_of(context.invocation_metadata() or ()), permit.caller, context)
    REQUEST.set(call.id)
    PARENT.set(str(value_of(context.invocation_metadata() or (), TRACEPARENT) or ""))
    TENANT.set(permit.caller.tenant)
    with health.request():
        try:
            await context.send_initial_metadata(
                ((HEADER, call.id), ("x-system-fingerprint", health.system_fingerprint))
            )
            async with permit:
                yield call
            return
        except asyncio.CancelledError:
            if not health.uncancel():
                log.info("call %s: the client cancelled it, or its deadline passed", call.id)
                raise
            error: Exception = StageUnavailable("The server is shutting down; please try again.", 1.0)
        except grpc.aio.AioRpcError:
            raise
        except Exception as caught:
            error = caught
        finally:
            call.close()
        await refuse(error, call.id, context)


async def refuse(error: Exception, call_id: str, context: Context) -> None:
    """Ends the call. Who reads nothing does not read this either: then the stream is reset as it is given up."""
    if is_fault(error):
        log.error("call %s failed", call_id, exc_info=error)
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            await context.abort_with_status(ending(status_of(error, call_id)))
    except TimeoutError:
        log.info("call %s: nobody reads how it ends", call_id)


def id_of(metadata: Metadata) -> str:
    return request_id(str(value_of(metadata, HEADER) or ""))


def value_of(metadata: Metadata, name: str) -> Any:
    return next((value for key, value in metadata if key == name), None)
