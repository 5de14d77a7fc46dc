"""chroma.v1.SpeechService, as gRPC calls it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from deployments.ingress.rpc.call import PERMIT, Call, Context, answering
from deployments.ingress.rpc.converse import converse
from deployments.ingress.rpc.generate import generate
from deployments.ingress.rpc.stubs.speech_service_pb2 import GenerateRequest
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceServicer
from deployments.ingress.services import Services


class SpeechService(SpeechServiceServicer):
    """Each call in the task that gRPC runs it in, which has no Serve parent."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.running = 0

    async def Converse(self, requests: Any, context: Context) -> None:
        """requests is not read: what the context reads can be waited for beside other things."""
        await self._answer(converse, context)

    async def Generate(self, request: GenerateRequest, context: Context) -> None:
        await self._answer(partial(generate, request), context)

    async def _answer(self, work: Callable[[Services, Call], Awaitable[None]], context: Context) -> None:
        self.running += 1
        permit = PERMIT.get()
        try:
            async with answering(context, permit, self._services.health) as call:
                await work(self._services, call)
        finally:
            permit.give_back()  # where it was not entered
            self.running -= 1
