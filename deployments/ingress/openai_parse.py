"""From a JSON object to a chat request, and from pydantic's findings to sentences a caller can act on."""

from typing import Any

from pydantic import ValidationError

from chroma_models.errors import InvalidRequest, InvalidVoice, UnknownModel
from deployments.ingress.openai_chat import ChatRequest, SystemMessage, UserMessage
from deployments.ingress.openai_fields import ONLY_NEUTRAL, WITHOUT_EFFECT

Json = dict[str, Any]


def parse_chat(body: Json, model_id: str) -> ChatRequest:
    """A request, or InvalidRequest, InvalidVoice, UnknownModel, UnknownVoice with the parameter that is wrong."""
    kept = {key: value for key, value in body.items() if key not in WITHOUT_EFFECT and key not in ONLY_NEUTRAL}
    for key, neutral in ONLY_NEUTRAL.items():
        value = body.get(key)
        # compared with type, for in JSON true is not 1
        if value is not None and not any(value == fine and type(value) is type(fine) for fine in neutral):
            raise InvalidRequest(f"'{key}' is not supported with this value; leave it out.", key)
    try:
        request = ChatRequest.model_validate(kept)
    except ValidationError as error:
        raise told(error, kept) from None
    if request.model != model_id:
        raise UnknownModel(f"The model '{request.model[:64]}' does not exist; this server has '{model_id}'.", "model")
    modalities = request.modalities
    if modalities is not None and sorted(modalities) not in (["text"], ["audio", "text"]):
        raise InvalidRequest("modalities must be ['text'] or ['text', 'audio'].", "modalities")
    last = next((message for message in reversed(request.messages) if not isinstance(message, SystemMessage)), None)
    if not isinstance(last, UserMessage) or not last.content:
        raise InvalidRequest("The conversation must end with something the user says, to be answered.", "messages")
    return request


def told(error: ValidationError, body: Json) -> InvalidRequest:
    """The first fault in OpenAI's words: a sentence and the parameter it is about."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = _path(fault["loc"], body)
    message = fault["msg"].rstrip(".")
    if fault["type"] == "extra_forbidden":
        return InvalidRequest(f"Unknown field '{param}'; leave it out.", param)
    if fault["type"] == "missing":
        message = "this field is required"
    if param.startswith("audio.voice"):
        return InvalidVoice(f"Invalid voice at '{param}': {message}. Send a reference clip and its transcript.", param)
    return InvalidRequest(f"Invalid value at '{param}': {message}.", param)


def _path(loc: tuple[int | str, ...], body: object) -> str:
    """pydantic's location without the names of union members, which the caller never wrote: messages[0].content."""
    path = ""
    here = body
    for i, step in enumerate(loc):
        if isinstance(step, int) and isinstance(here, list) and step < len(here):
            path += f"[{step}]"
            here = here[step]
        elif isinstance(step, str) and isinstance(here, dict) and (step in here or i == len(loc) - 1):
            path += f".{step}" if path else step
            here = here.get(step)
    return path[:200]
