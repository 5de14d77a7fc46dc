"""The conversation so far, and how much of it a turn gets to read.

What is kept, when a conversation grows beyond what the Reasoner reads: the instructions and everything the system said,
always; the newest exchange (a user's item and the replies to it), at worst without the beginning of its audio; and
before it as many whole exchanges as fit, newest first. It is chat completions' policy (conversation.py), for items.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chroma_models.errors import InvalidRequest, TooLarge
from chroma_models.types import LISTEN_RATE_HZ, Audio, Message, Text
from deployments.ingress.config import AudioLimits, SessionLimits
from deployments.ingress.openai_reply import audio_tokens
from deployments.ingress.services import Services
from deployments.ingress.session.errors import DuplicateItem, UnknownItem, Verb
from deployments.ingress.session.items import Item, Reply, Speech, Words
from deployments.ingress.session.settings import SessionSettings, Truncation

ROOT = "root"  # before the first item
BYTES_PER_TOKEN = 3  # of UTF-8 text, about; where the guess is wrong the turn is tried again with less (response.py)
MARGIN_TOKENS = 64  # of the Reasoner's context; what we count as text is a guess
MESSAGE_TOKENS = 5  # the chat template's own, for each message


class History:
    """Items in order. What it holds is bounded: the oldest exchange is forgotten first."""

    def __init__(self, limits: SessionLimits, audio: AudioLimits) -> None:
        self._limits, self._audio = limits, audio
        self._items: list[Item] = []

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(self._items)

    def add(self, item: Item, after: str | None = None) -> str | None:
        """after: an item's id, "root" for the beginning, None for the end. Returns the id of the item before it.

        Raises DuplicateItem, UnknownItem, TooLarge.
        """
        if any(one.id == item.id for one in self._items):
            raise DuplicateItem(f"There is an item '{item.id[:64]}' already.", "item.id")
        if _chars(item) > self._limits.max_text_chars:
            raise TooLarge(f"An item may hold {self._limits.max_text_chars} characters of text.", "item.content")
        at = len(self._items) if after is None else 0 if after == ROOT else self._index(after, "create") + 1
        self._items.insert(at, item)
        previous = self._items[at - 1].id if at else None
        self._forget()
        return previous

    def get(self, item_id: str, verb: Verb = "retrieve") -> Item:
        """Raises UnknownItem, which speaks of the verb."""
        return self._items[self._index(item_id, verb)]

    def previous(self, item_id: str) -> str | None:
        """The id of the item before one; None before the first, and for one that is gone."""
        for at in range(len(self._items) - 1, 0, -1):
            if self._items[at].id == item_id:
                return self._items[at - 1].id
        return None

    def remove(self, item_id: str) -> None:
        """Raises UnknownItem."""
        del self._items[self._index(item_id, "delete")]

    def replace(self, item: Item) -> None:
        """Does nothing where the item has been deleted meanwhile."""
        for at in range(len(self._items) - 1, -1, -1):  # it is nearly always the last
            if self._items[at].id == item.id:
                self._items[at] = item
                return

    def truncate(self, item_id: str, audio_end_ms: int) -> int:
        """Of an assistant's speech, keep what was played until audio_end_ms; returns it, or the length if less.

        Raises UnknownItem, InvalidRequest.
        """
        at = self._index(item_id, "truncate")
        item = self._items[at]
        reply = next((part for part in item.parts if isinstance(part, Reply)), None)
        if reply is None:
            raise InvalidRequest("Only what the assistant has spoken can be truncated.", "item_id")
        if audio_end_ms < 0:
            raise InvalidRequest("audio_end_ms must not be negative.", "audio_end_ms")
        self._items[at] = replace(item, parts=(reply.heard_until(audio_end_ms),))
        return min(audio_end_ms, reply.audio_ms)

    def _index(self, item_id: str, verb: Verb) -> int:
        for at, item in enumerate(self._items):
            if item.id == item_id:
                return at
        raise UnknownItem(verb, item_id)

    def _forget(self) -> None:
        """Audio that no turn will be given again, and exchanges beyond max_items or max_text_chars."""
        left_s = self._audio.max_audio_s
        for at in range(len(self._items) - 1, -1, -1):
            item = self._items[at]
            if left_s <= 0 and any(isinstance(part, Speech) and part.audio for part in item.parts):
                parts = tuple(replace(p, audio=None) if isinstance(p, Speech) else p for p in item.parts)
                self._items[at] = replace(item, parts=parts)
            left_s -= sum(p.audio.seconds for p in item.parts if isinstance(p, Speech) and p.audio)
        while len(self._items) > 1 and (
            len(self._items) > self._limits.max_items or sum(map(_chars, self._items)) > self._limits.max_text_chars
        ):
            del self._items[0]


@dataclass(frozen=True, slots=True)
class Room:
    """What a turn may read: tokens of the Reasoner, instructions and reply not counted, and the limits of audio."""

    tokens: int
    audio_s: float
    audio_parts: int

    @classmethod
    def within(cls, services: Services, settings: SessionSettings, share: float) -> "Room":
        """A share of what the Reasoner has left beside the instructions and the longest reply."""
        config = services.config
        reply = services.limits(settings.max_reply_s, settings.max_text_tokens).max_text_tokens
        instructions = -(-len(settings.instructions.encode()) // BYTES_PER_TOKEN)
        tokens = max(0, config.context_tokens - reply - instructions - MARGIN_TOKENS)
        return cls(int(tokens * share), config.audio.max_audio_s, config.audio.max_audio_parts)


def read(items: Sequence[Item], instructions: str, room: Room, truncation: Truncation) -> tuple[Message, ...]:
    """The messages of a turn, within its room."""
    opening = [Message("system", (Text(instructions),))] if instructions else []
    exchanges = _exchanges(items)
    kept: list[list[Message]] = []
    if truncation.mode == "disabled":
        return tuple(opening + [m for exchange in exchanges for m in _messages(exchange)])
    left = _Left(room)
    if all(left.take(_messages(exchange)) and _remembered(exchange) for exchange in reversed(exchanges)):
        return tuple(opening + [m for exchange in exchanges for m in _messages(exchange)])
    left = _Left(replace(room, tokens=int(room.tokens * truncation.keep)))
    full = False
    for exchange in reversed(exchanges):
        messages = _messages(exchange)
        if not kept:
            messages = left.cut(messages)
            left.take(messages)
        elif full or not (_remembered(exchange) and left.take(messages)):
            full = True
            messages = [message for message in messages if message.role == "system"]
        kept.append(messages)
    return tuple(opening + [message for messages in reversed(kept) for message in messages])


class _Left:
    """How much room is left."""

    def __init__(self, room: Room) -> None:
        self._tokens, self._parts = room.tokens, room.audio_parts
        self._samples = int(room.audio_s * LISTEN_RATE_HZ)

    def take(self, messages: list[Message]) -> bool:
        """Whether they fit; takes their room."""
        audio = _audio(messages)
        self._tokens -= tokens_of(messages)
        self._parts -= len(audio)
        self._samples -= sum(clip.count for clip in audio)
        return self._tokens >= 0 and self._parts >= 0 and self._samples >= 0

    def cut(self, messages: list[Message]) -> list[Message]:
        """Without the beginning of their audio, where it alone is too much."""
        room = max(0, self._tokens - tokens_of([_written(message) for message in messages]))
        left = min(self._samples, room * LISTEN_RATE_HZ // 25)
        cut: list[Message] = []
        for message in reversed(messages):
            parts: list[Text | Audio] = []
            for part in reversed(message.parts):
                if isinstance(part, Text):
                    parts.append(part)
                elif left > 0:
                    parts.append(part.newest(left))
                    left -= part.count
            cut.append(Message(message.role, tuple(reversed(parts))))
        return [message for message in reversed(cut) if message.parts]


def tokens_of(messages: Sequence[Message]) -> int:
    """Tokens that messages take in the Reasoner: audio exactly, text about."""
    text = sum(len(p.text.encode("utf-8", "replace")) for m in messages for p in m.parts if isinstance(p, Text))
    return audio_tokens(messages) + -(-text // BYTES_PER_TOKEN) + MESSAGE_TOKENS * len(messages)


def _exchanges(items: Sequence[Item]) -> list[list[Item]]:
    """Each begins with an item of the user's, but for what came before the first."""
    exchanges: list[list[Item]] = []
    for item in items:
        if item.role == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(item)
    return exchanges


def _messages(items: Sequence[Item]) -> list[Message]:
    messages = (Message(item.role, tuple(_heard(part) for part in item.parts if _said(part))) for item in items)
    return [message for message in messages if message.parts]


def _said(part: Words | Speech | Reply) -> bool:
    return part.audio is not None if isinstance(part, Speech) else bool(part.text)


def _heard(part: Words | Speech | Reply) -> Text | Audio:
    if isinstance(part, Speech):
        assert part.audio is not None
        return part.audio
    return Text(part.text)


def _written(message: Message) -> Message:
    return Message(message.role, tuple(part for part in message.parts if isinstance(part, Text)))


def _audio(messages: Sequence[Message]) -> list[Audio]:
    return [part for message in messages for part in message.parts if isinstance(part, Audio)]


def _remembered(items: Sequence[Item]) -> bool:
    return not any(isinstance(part, Speech) and part.audio is None for item in items for part in item.parts)


def _chars(item: Item) -> int:
    return sum(len(part.text) for part in item.parts if not isinstance(part, Speech))
