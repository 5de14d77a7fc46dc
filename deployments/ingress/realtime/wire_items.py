"""Items as clients write and read them."""

from typing import Any

import numpy as np

from chroma_models.errors import InvalidAudio, InvalidRequest, TooLarge
from chroma_models.types import LISTEN_RATE_HZ, Audio
from deployments.ingress import g711
from deployments.ingress.audio_in import decode_base64, encode_base64
from deployments.ingress.config import AudioLimits
from deployments.ingress.live_audio import AudioFormat, Hearing, resample_int16
from deployments.ingress.realtime.shapes import AssistantMessage, SystemMessage, UserMessage, UserPart
from deployments.ingress.session.ids import new_item_id
from deployments.ingress.session.items import Item, Part, Reply, Speech, Words

Json = dict[str, Any]


def read_item(message: UserMessage | SystemMessage | AssistantMessage, form: AudioFormat, limits: AudioLimits) -> Item:
    """form: of the audio in it, decoded here: for a worker thread. Raises InvalidRequest, InvalidAudio, TooLarge."""
    parts: tuple[Part, ...]
    if isinstance(message, UserMessage):
        parts = tuple(_heard(i, part, form, limits) for i, part in enumerate(message.content))
    elif isinstance(message, SystemMessage):
        parts = tuple(Words(part.text) for part in message.content)
    else:
        parts = tuple(Words(part.text or part.transcript or "") for part in message.content)
    return Item(message.id or new_item_id(), message.role, parts)


def _heard(index: int, part: UserPart, form: AudioFormat, limits: AudioLimits) -> Words | Speech:
    param = f"item.content[{index}]"
    if part.type == "input_text":
        if part.text is None:
            raise InvalidRequest("A part of type input_text has a text.", f"{param}.text")
        return Words(part.text)
    if part.audio is None:
        raise InvalidRequest("A part of type input_audio has audio.", f"{param}.audio")
    try:
        data = decode_base64(part.audio)
        if len(data) > limits.max_audio_s * form.bytes_per_s:
            raise TooLarge(f"A spoken part lasts at most {limits.max_audio_s:g} s.")
        hearing = Hearing(form)
        samples = np.concatenate([hearing.hear(data), hearing.flush()])
    except (InvalidAudio, TooLarge) as error:
        raise type(error)(error.message, f"{param}.audio") from None
    if len(samples) < limits.min_clip_s * LISTEN_RATE_HZ:
        raise InvalidAudio(f"The audio is shorter than {limits.min_clip_s:g} s.", f"{param}.audio")
    return Speech(Audio(samples.tobytes()), part.transcript)


def told_item(item: Item) -> Json:
    """Without audio, as most events have it."""
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "status": item.status,
        "role": item.role,
        "content": [_told(item, part) for part in item.parts],
    }


def retrieved_item(item: Item, form: AudioFormat) -> Json:
    """With the user's audio in form, as far as it is kept. Resamples: for a worker thread."""
    told = told_item(item)
    for part, content in zip(item.parts, told["content"], strict=True):
        if isinstance(part, Speech) and part.audio is not None:
            content["audio"] = encode_base64(_in_format(part.audio, form))
    return told


def _told(item: Item, part: Part) -> Json:
    if isinstance(part, Speech):
        return {"type": "input_audio", "transcript": part.transcript}
    if isinstance(part, Reply):
        return {"type": "output_audio", "transcript": part.text}
    return {"type": "output_text" if item.role == "assistant" else "input_text", "text": part.text}


def _in_format(audio: Audio, form: AudioFormat) -> bytes:
    samples = resample_int16(np.frombuffer(audio.pcm, np.int16), LISTEN_RATE_HZ, form.rate_hz)
    return samples.tobytes() if form.encoding == "pcm16" else g711.compress(samples, form.encoding)
