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
    loc, missing = fault["loc"], fault["type"] == "missing"
    param = (_path(loc, body, missing) or _path(loc, body, missing, named=False) or "").lstrip(".")[:200]
    message = fault["msg"].rstrip(".")
    if fault["type"] == "extra_forbidden":
        return InvalidRequest(f"Unknown field '{param}'; leave it out.", param)
    if fault["type"] == "missing":
        message = "this field is required"
    if param.startswith("audio.voice"):
        return InvalidVoice(f"Invalid voice at '{param}': {message}. Send a reference clip and its transcript.", param)
    return InvalidRequest(f"Invalid value at '{param}': {message}.", param)


def _path(loc: tuple[int | str, ...], here: object, missing: bool, named: bool = True) -> str | None:
    """pydantic's location as the caller wrote it, messages[0].content: the names of union members are left out.

    A step is taken where what was sent has it, else skipped; where both are possible, the way that leads on counts.
    missing: the last step names a field that is not there. named: the last step has to be taken.
    """
    if not loc:
        return ""
    step, rest = loc[0], loc[1:]
    taken: str | None = None
    if isinstance(step, int):
        if isinstance(here, list) and step < len(here):
            taken = _path(rest, here[step], missing, named)
        return None if taken is None else f"[{step}]{taken}"
    if isinstance(here, dict) and (step in here or (missing and not rest)):
        taken = _path(rest, here.get(step), missing, named)
    if taken is not None:
        return f".{step}{taken}"
    return _path(rest, here, missing, named) if rest or not named else None
