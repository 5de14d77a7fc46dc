"""GET /openapi.json: the operations as an OpenAPI 3.1 document, the same for everybody."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import pydantic_core
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chroma_models.errors import (
    ChromaError,
    Forbidden,
    InvalidRequest,
    Overloaded,
    StageUnavailable,
    TooLarge,
    Unauthenticated,
)
from deployments.ingress.admin_routes import ADMIN
from deployments.ingress.callers import needs_key, scope_of
from deployments.ingress.errors import HeadersTooLarge, SlowRequest, UnknownRoute, wire_of_kind
from deployments.ingress.openai_fields import ONLY_NEUTRAL, WITHOUT_EFFECT
from deployments.ingress.openapi.answers import Error
from deployments.ingress.openapi.operations import EVENTS, JSON, OPERATIONS, RATES, TEXT, Operation

Json = dict[str, Any]

PATH = "/openapi.json"
ABOUT = """\
OpenAI's shapes, with extensions of our own under `chroma` and in the fields that say so. Beside these routes there are
the Realtime API, a WebSocket at `/v1/realtime`, and gRPC on a port of its own.

Every answer carries `x-request-id`. What goes wrong is told as an `Error`, under the same few statuses everywhere; 500
is a fault of the server's and says no more than the request id. Where coming back helps, `retry-after` says when."""
STREAM = "Events whose data is a ChatCompletionChunk, or an Error as the last one; at the end `data: [DONE]`."
HEADERS = {
    "x-request-id": "Names the request in logs; one that the client sent comes back.",
    "x-system-fingerprint": "Equal where the model behind is.",
    "retry-after": "Seconds.",
    "www-authenticate": "Bearer.",
    **dict.fromkeys(RATES, "Of the tenant's share."),
}
SECURITY = {
    "key": "An API key, ck_live_..., with the scopes that are named. A server without authentication asks for none.",
    "operator": "The operator's own key. Where none is set there is nothing at /v1/admin.",
}


def route() -> Route:
    """Written down once, before anybody asks: it takes some 50 ms."""
    body = pydantic_core.to_json(document())

    async def serve(request: Request) -> Response:
        return Response(body, media_type=JSON)

    return Route(PATH, serve)


@cache
def document() -> Json:
    shapes = _Shapes()
    paths: dict[str, Json] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method.lower()] = _operation(operation, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "chroma-serve", "version": version("chroma-serve"), "description": ABOUT},
        "paths": dict(paths),
        "components": {
            "headers": {name: {"description": about, "schema": {"type": "string"}} for name, about in HEADERS.items()},
            "schemas": dict(sorted(shapes.components.items())),
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer", "description": about} for name, about in SECURITY.items()
            },
        },
    }


class _Shapes:
    """JSON schemas of what pydantic knows; those with a name are kept as components."""

    def __init__(self) -> None:
        self.components: Json = {}

    def ref(self, kind: Any) -> Json:
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        self.components |= schema.pop("$defs", {})
        name = getattr(kind, "__name__", "")
        if "properties" not in schema:
            return dict(schema)
        if name == "ChatRequest":
            schema["properties"] |= _read_past()
        self.components[name] = schema
        return {"$ref": f"#/components/schemas/{name}"}

    def properties(self, kind: Any) -> Json:
        return dict(TypeAdapter(kind).json_schema()["properties"])


def _read_past() -> Json:
    """What a chat request may hold beside what its model reads."""
    neutral = {name: {"enum": [*values, None]} for name, values in ONLY_NEUTRAL.items()}
    return neutral | {name: {"description": "Has no effect."} for name in sorted(WITHOUT_EFFECT)}


def _operation(operation: Operation, shapes: _Shapes) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    if operation.query is not None:
        parameters += [
            {"name": name, "in": "query", "schema": schema}
            for name, schema in shapes.properties(operation.query).items()
        ]
    told: Json = {"operationId": _name(operation), "summary": operation.summary, "security": _security(operation.path)}
    if parameters:
        told["parameters"] = parameters
    if operation.takes is not None:
        told["requestBody"] = {
            "required": operation.body_needed,
            "content": {operation.body_type: {"schema": shapes.ref(operation.takes)}},
        }
    return told | {"responses": _responses(operation, shapes)}


def _name(operation: Operation) -> str:
    words = re.findall(r"[a-zA-Z]+", operation.path)
    return "_".join([operation.method.lower(), *words])


def _security(path: str) -> list[Json]:
    if path.startswith(ADMIN):
        return [{"operator": []}]
    return [{"key": [scope_of(path)]}] if needs_key(path) else []


def _responses(operation: Operation, shapes: _Shapes) -> Json:
    contents: dict[int, Json] = defaultdict(dict)
    words: dict[int, list[str]] = defaultdict(list)
    for status, answers in operation.answers.items():
        words[status].append("As the summary says." if status < 300 else "Not now.")
        for kind, shape in answers.items():
            contents[status][kind] = {"schema": _answer(kind, shape, shapes)}
    error = {"schema": shapes.ref(Error)}
    for fault in (*operation.errors, *_usual_errors(operation)):
        status = wire_of_kind(fault).http
        words[status].append(f"`{fault.code}`")
        if JSON in operation.answers.get(status, {}):
            told = shapes.ref(operation.answers[status][JSON])
            contents[status][JSON] = {"schema": {"anyOf": [told, error["schema"]]}}
        else:
            contents[status][JSON] = error
    return {
        str(status): {
            "description": " ".join(dict.fromkeys(words[status])),
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _headers(status, operation)},
            "content": contents[status],
        }
        for status in sorted(contents)
    }


def _answer(kind: str, shape: Any, shapes: _Shapes) -> Json:
    if kind == EVENTS:
        shapes.ref(shape)
        return {"type": "string", "description": STREAM}
    return {"type": "string"} if kind == TEXT else shapes.ref(shape)


def _usual_errors(operation: Operation) -> Iterator[type[ChromaError]]:
    """What can go wrong wherever something is of a kind: asked at all, behind a key, named, sent a body."""
    yield from (SlowRequest, HeadersTooLarge, StageUnavailable)
    if operation.path.startswith(ADMIN):
        yield from (Unauthenticated, UnknownRoute)
    elif needs_key(operation.path):
        yield from (Unauthenticated, Forbidden)
    if "{" in operation.path:
        yield UnknownRoute
    if operation.takes is not None:
        yield from (InvalidRequest, TooLarge, Overloaded)


def _headers(status: int, operation: Operation) -> Iterator[str]:
    yield from ("x-request-id", "x-system-fingerprint")
    if status == 401:
        yield "www-authenticate"
    if status in (429, 503):
        yield "retry-after"
    if status == 200:
        yield from operation.headers
