"""Who may call: asked before a byte of a message is read."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from chroma_models.errors import ChromaError, Overloaded
from deployments.ingress.callers import Caller
from deployments.ingress.rpc.call import PERMIT, Context, Metadata, id_of, refuse, value_of
from deployments.ingress.services import Services

Handler: TypeAlias = grpc.RpcMethodHandler
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls to one service through for callers with a key, as long as there is room. Others are open to all."""

    def __init__(self, service: str, services: Services, running: Callable[[], int]) -> None:
        self._prefix = f"/{service}/"
        self._services, self._running = services, running

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        if details.method.startswith(self._prefix):
            metadata: Metadata = details.invocation_metadata or ()
            try:
                caller = await self._caller(metadata)
                self._check_room()
                PERMIT.set(await self._services.permit(caller))
            except ChromaError as error:
                self._services.refusals.count("grpc", error)
                return _refusing(error, id_of(metadata))
        return await continuation(details)

    async def _caller(self, metadata: Metadata) -> Caller:
        caller = await self._services.callers.of_authorization(str(value_of(metadata, "authorization") or ""))
        caller.check("speech")
        return caller

    def _check_room(self) -> None:
        if self._running() >= self._services.config.grpc.max_calls:
            raise Overloaded("Too many calls are open; please try again.", 1.0)


def _refusing(error: ChromaError, call_id: str) -> Handler:
    """Answers without reading; a handler of streams fits every method."""

    async def refused(_: Any, context: Context) -> None:
        await refuse(error, call_id, context)

    return grpc.stream_stream_rpc_method_handler(refused)
