"""Generate: one conversation given whole, one answer."""

from dataclasses import replace
from functools import partial
from hashlib import blake2b

from chroma_models.errors import InvalidRequest
from deployments.ingress.rpc.call import Call
from deployments.ingress.rpc.messages import check_count, items_of
from deployments.ingress.rpc.settings import settings_of
from deployments.ingress.rpc.spelling import generated, spell
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.services import Services
from deployments.ingress.session.events import ResponseDone
from deployments.ingress.session.session import Session

AFFINITY_BYTES = 1 << 16  # of the first user message tell conversations apart; hashing all would hold the event loop


async def generate(request: pb.GenerateRequest, services: Services, call: Call) -> None:
    """A response of a session that has no more than this one. Raises what keeps the answer from being made."""
    with services.refusals.counted("grpc"):
        services.check_room()
    settings = await settings_of(request.config, services, call.caller)
    check_count(request.messages, services.config.max_messages, "messages")
    if not request.messages or request.messages[-1].role != pb.ROLE_USER:
        raise InvalidRequest("The conversation must end with something the user says, to be answered.", "messages")
    items = await services.off_loop(partial(items_of, request.messages, services.config.audio, "messages"))
    affinity = _affinity(request)
    request.ClearField("messages")  # heard: a long answer need not hold the upload
    session = Session(services, call.caller, replace(settings, turn_detection=None), affinity, "grpc")
    try:
        session.respond(given=items, in_conversation=False)
        async for event in session.events():
            if isinstance(event, ResponseDone) and event.error is not None:
                raise event.error
            told = spell(event)
            said = told and generated(told)
            if said is not None:
                await call.say(said, services.config.max_send_s)
            if isinstance(event, ResponseDone):
                return
    finally:
        await session.close()


def _affinity(request: pb.GenerateRequest) -> str:
    """What keeps a conversation on one Reasoner, call after call: its first user message."""
    first = next(message for message in request.messages if message.role == pb.ROLE_USER)
    return "first:" + blake2b(first.SerializeToString()[:AFFINITY_BYTES], digest_size=16).hexdigest()
