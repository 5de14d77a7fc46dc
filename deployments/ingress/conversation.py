"""From the messages of a request to the messages of a turn.

What is kept, when spoken history grows beyond max_audio_s or max_audio_parts: system messages always; the newest user
message, at worst without the beginning of its oldest audio; and before it as many whole exchanges (a user message and
the replies to it) as fit, newest first. Older audio is dropped without being decoded.
"""

from collections.abc import Mapping, Sequence

from chroma_models.errors import InvalidAudio, TooLarge
from chroma_models.types import LISTEN_RATE_HZ, Audio, Message, Text
from deployments.ingress.audio_in import decode_base64, question
from deployments.ingress.config import AudioLimits
from deployments.ingress.openai_chat import (
    AssistantMessage,
    AudioPart,
    ChatMessage,
    ChatRequest,
    SystemMessage,
    TextPart,
    UserMessage,
)
from deployments.ingress.replies import ReplyStore


def resolve_replies(request: ChatRequest, replies: ReplyStore, tenant: str) -> dict[int, str]:
    """What assistant messages that only name an audio id said, by index. Raises UnknownReply."""
    said = {}
    for i, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.audio and not message.content:
            param = f"messages[{i}].audio.id"
            said[i] = message.audio.transcript or replies.transcript(tenant, message.audio.id, param)
    return said


def listen(messages: Sequence[ChatMessage], said: Mapping[int, str], limits: AudioLimits) -> tuple[Message, ...]:
    """Decode and keep what the limits allow. Raises InvalidAudio, TooLarge. Meant for a worker thread."""
    newest = max(i for i, message in enumerate(messages) if isinstance(message, UserMessage))
    budget = _Budget(limits)
    kept: list[Message] = []
    exchange: list[Message] = []  # what follows the next older user message, newest first
    full = False
    for i in range(len(messages) - 1, -1, -1):
        message = messages[i]
        if isinstance(message, SystemMessage):
            (kept if full else exchange).append(Message("system", _text_parts(message.content)))
        elif full:
            continue
        elif isinstance(message, AssistantMessage):
            text = said.get(i)
            exchange.append(Message("assistant", (Text(text),) if text is not None else _text_parts(message.content)))
        else:
            parts = budget.newest(i, message) if i == newest else budget.whole(i, message)
            if parts is None:
                full = True
                kept += [m for m in exchange if m.role == "system"]
            else:
                kept += [*exchange, Message("user", parts)]
            exchange = []
    kept += exchange
    return tuple(reversed(kept))


class _Budget:
    """How much more spoken audio fits."""

    def __init__(self, limits: AudioLimits) -> None:
        self._limits = limits
        self._samples = int(limits.max_audio_s * LISTEN_RATE_HZ)
        self._parts = limits.max_audio_parts

    def newest(self, index: int, message: UserMessage) -> tuple[Text | Audio, ...]:
        """All texts, and the newest of the audio, cut at its beginning if need be."""
        parts: list[Text | Audio] = []
        for j, part in reversed(list(enumerate(_listed(message)))):
            if isinstance(part, TextPart):
                parts.append(Text(part.text))
            elif self._parts and self._samples:
                parts.append(self._take(self._hear(index, j, part).newest(self._samples)))
        return tuple(reversed(parts))

    def whole(self, index: int, message: UserMessage) -> tuple[Text | Audio, ...] | None:
        """All parts, or None where they do not fit."""
        listed = _listed(message)
        if sum(isinstance(part, AudioPart) for part in listed) > self._parts:
            return None
        parts: list[Text | Audio] = []
        for j, part in enumerate(listed):
            if isinstance(part, TextPart):
                parts.append(Text(part.text))
                continue
            if not self._samples:
                return None
            audio = self._hear(index, j, part)
            if audio.count > self._samples:
                return None
            parts.append(self._take(audio))
        return tuple(parts)

    def _take(self, audio: Audio) -> Audio:
        self._samples -= audio.count
        self._parts -= 1
        return audio

    def _hear(self, index: int, part_index: int, part: AudioPart) -> Audio:
        try:
            clip = part.input_audio
            return question(decode_base64(clip.data), clip.format, self._limits)
        except (InvalidAudio, TooLarge) as error:
            raise type(error)(error.message, f"messages[{index}].content[{part_index}].input_audio.data") from None


def _listed(message: UserMessage) -> list[TextPart | AudioPart]:
    content = message.content
    return [TextPart(type="text", text=content)] if isinstance(content, str) else list(content)


def _text_parts(content: object) -> tuple[Text, ...]:
    """The words of a system or assistant message; a refusal was said too."""
    if content is None or isinstance(content, str):
        return (Text(content),) if content else ()
    assert isinstance(content, list)
    return tuple(Text(part.text if isinstance(part, TextPart) else part.refusal) for part in content)
