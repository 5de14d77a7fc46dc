"""A conversation as clients send it, as the items of a session."""

from collections.abc import Sequence

from chroma_models.errors import InvalidAudio, InvalidRequest, TooLarge
from chroma_models.types import Audio
from deployments.ingress.audio_in import question
from deployments.ingress.config import AudioLimits
from deployments.ingress.rpc.formats import clip_file
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.session.ids import new_item_id
from deployments.ingress.session.items import Item, Part, Role, Speech, Words

ROLES: dict[int, Role] = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}


def check_count(messages: Sequence[pb.Message], most: int, field: str) -> None:
    """Before anything is made of them. Raises TooLarge."""
    if len(messages) > most or any(len(message.parts) > most for message in messages):
        raise TooLarge(f"There are more than {most} messages, or parts of one.", field)


def items_of(messages: Sequence[pb.Message], limits: AudioLimits, field: str) -> list[Item]:
    """Clips are decoded here: for a worker thread. Beyond max_audio_s, older ones are not (Speech without audio).

    Raises InvalidRequest, InvalidAudio, TooLarge with the field at fault.
    """
    left_s = limits.max_audio_s
    items: list[Item] = []
    for i in range(len(messages) - 1, -1, -1):
        item = item_of(messages[i], limits, f"{field}[{i}]", decode=left_s > 0)
        left_s -= sum(part.audio.seconds for part in item.parts if isinstance(part, Speech) and part.audio)
        items.append(item)
    return items[::-1]


def item_of(message: pb.Message, limits: AudioLimits, field: str, decode: bool = True) -> Item:
    """As items_of, for one message."""
    if message.role not in ROLES:
        raise InvalidRequest("A message's role is ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT.", f"{field}.role")
    role = ROLES[message.role]
    parts: list[Part] = []
    for i, part in enumerate(message.parts):
        where = f"{field}.parts[{i}]"
        kind = part.WhichOneof("content")
        if kind is None:
            raise InvalidRequest("A part holds text or audio.", where)
        if kind == "text":
            parts.append(Words(part.text))
        elif role != "user":
            raise InvalidRequest("Only a user's message may be spoken; send the words.", f"{where}.audio")
        else:
            parts.append(Speech(_heard(part.audio, limits, f"{where}.audio") if decode else None))
    if not parts:
        raise InvalidRequest("A message has at least one part.", f"{field}.parts")
    return Item(new_item_id(), role, tuple(parts))


def _heard(clip: pb.AudioClip, limits: AudioLimits, field: str) -> Audio:
    data, form = clip_file(clip, field)
    try:
        return question(data, form, limits)
    except (InvalidAudio, TooLarge) as error:
        raise type(error)(error.message, f"{field}.content") from None
