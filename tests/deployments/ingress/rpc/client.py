"""What tests say and hear over gRPC."""

import asyncio
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from tests.deployments.ingress.scripted import until

DETAILS = (ErrorInfo, RequestInfo, BadRequest, RetryInfo)


def user(text: str = "hello") -> pb.Message:
    return pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=text)])


def ask(*messages: pb.Message, **config: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(config=pb.SessionConfig(**config), messages=messages or [user()])


def details(status: Status) -> dict[type, Any]:
    """By their type."""
    found = {}
    for packed in status.details:
        kind = next(kind for kind in DETAILS if packed.Is(kind.DESCRIPTOR))
        found[kind] = kind()
        packed.Unpack(found[kind])
    return found


async def heard(call: Any) -> list[Any]:
    """What is left of an answer."""
    told = []
    while (one := await call.read()) is not grpc.aio.EOF:
        told.append(one)
    return told


async def refusal(call: Any) -> tuple[grpc.StatusCode, Status]:
    """How a call ends that must not go well."""
    try:
        await heard(call)
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        return error.code(), status or Status()
    raise AssertionError("the call ended well")


class Talk:
    """A conversation that keeps everything it is told."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.told: list[pb.ConverseResponse] = []
        self.listening = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, speech: Any, *, deadline_s: float | None = None, **config: Any) -> "Talk":
        """The session is ready, unless it was refused. No turn detection where the config says nothing of it."""
        detection = config.pop("turn_detection", pb.TurnDetection(disabled=True))
        talk = cls(speech.Converse(timeout=deadline_s))
        await talk.send(config=pb.SessionConfig(turn_detection=detection, **config))
        await talk.one("session_ready")
        return talk

    async def _listen(self) -> None:
        async for told in self.call:
            self.told.append(told)

    async def send(self, request_id: str = "", **message: Any) -> None:
        await self.call.write(pb.ConverseRequest(request_id=request_id, **message))

    async def say(self, text: str) -> None:
        """One turn of the user's, to be answered."""
        await self.send(add_message=user(text))
        await self.send(create_response=pb.CreateResponse())

    def all(self, kind: str) -> list[Any]:
        return [getattr(told, kind) for told in self.told if told.WhichOneof("event") == kind]

    async def one(self, kind: str, count: int = 1) -> Any:
        """The count-th of a kind, once it has come."""

        def come() -> bool:
            if len(self.all(kind)) < count and self.listening.done():
                self.listening.result()
                raise AssertionError(f"the call ended without {kind}")
            return len(self.all(kind)) >= count

        await until(come)
        return self.all(kind)[count - 1]

    async def end(self) -> None:
        """Half-close, and hear the rest."""
        await self.call.done_writing()
        await self.listening

    def audio(self, response_id: str) -> bytes:
        return b"".join(chunk.audio for chunk in self.all("response_delta") if chunk.response_id == response_id)

    def text(self, response_id: str) -> str:
        return "".join(delta.text for delta in self.all("response_delta") if delta.response_id == response_id)

    @property
    def kinds(self) -> list[str]:
        """In order, repetitions apart."""
        kinds = [told.WhichOneof("event") for told in self.told]
        return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
