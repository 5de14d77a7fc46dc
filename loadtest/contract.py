"""The messages of the server's gRPC service, as the server tells them: a stranger needs no file of ours."""

from functools import cache
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "chroma.v1.SpeechService"


@cache
def contract(address: str) -> dict[str, Any]:
    """The classes of the messages of a conversation, by name."""
    with grpc.insecure_channel(address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        names = ("ConverseRequest", "ConverseResponse")
        found = {name: pool.FindMessageTypeByName(f"chroma.v1.{name}") for name in names}
        return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}
