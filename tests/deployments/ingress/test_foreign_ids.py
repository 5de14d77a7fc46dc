"""An id of another tenant's is answered as one that never was, wherever an id can be sent: found by introspection."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import grpc
import httpx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.routing import Route, WebSocketRoute

from deployments.ingress.realtime.shapes import AnyEvent
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.rpc.client import refusal
from tests.deployments.ingress.scripted import file_of, tone

CLIP = file_of(tone(4 * 24_000, 24_000), 24_000)
ADMIN = "/v1/admin/"  # the operator's own, who may see every tenant: one key opens all of it or nothing
PUBLIC = {"/", "/openapi.json", "/healthz", "/readyz", "/-/healthz", "/v1/provenance/keys"}  # the same for everybody
PER_ANSWER = {"x-request-id", "openai-processing-ms", "date"}
OWN_SHARE = "x-ratelimit-"  # what is left of the caller's own share changes from call to call
Json = dict[str, Any]


@dataclass
class Acme:
    """What one tenant has, and another shall not find. Each id with one of the same form that never was."""

    service: Service
    zoo: httpx.AsyncClient
    zoo_key: str
    ids: dict[str, str]

    def never(self, kind: str) -> str:
        return self.ids[kind][:-8] + "deadbeef"


@pytest.fixture
async def acme(start: Start) -> Any:
    service = await start(auth=True)
    key, zoo_key = await service.key("acme"), await service.key("zoo")
    own, url = {"authorization": f"Bearer {key}"}, service.http.base_url
    files = {"recording": ("a.wav", CLIP, "audio/wav")}
    made = await service.http.post(
        "/v1/audio/voice_consents", headers=own, data={"name": "me", "language": "en"}, files=files
    )
    consent = made.json()["id"]
    form = {"name": "me", "consent": consent, "transcript": "words"}
    files = {"audio_sample": ("a.wav", CLIP, "audio/wav")}
    voice = (await service.http.post("/v1/audio/voices", headers=own, data=form, files=files)).json()["id"]
    body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], "modalities": ["text", "audio"]}
    said = (await service.http.post("/v1/chat/completions", headers=own, json={**body, "audio": {}})).json()
    live = await Client.connect(service, key)
    try:
        done = await live.answered()
        ids = {
            "consent": consent,
            "voice": voice,
            "audio": said["choices"][0]["message"]["audio"]["id"],
            "item": done["output"][0]["id"],
            "response": done["id"],
        }
        bearer = {"authorization": f"Bearer {zoo_key}"}
        async with httpx.AsyncClient(base_url=url, headers=bearer, timeout=20, trust_env=False) as zoo:
            yield Acme(service, zoo, zoo_key, ids)
        for path in (f"/v1/audio/voices/{voice}", f"/v1/audio/voice_consents/{consent}"):
            assert (await service.http.get(path, headers=own)).status_code == 200  # nobody took it away
    finally:
        await live.close()


Try = tuple[str, Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]]


def path(kind: str, method: str, route: str, **body: Any) -> Try:
    return kind, lambda http, named: http.request(method, route.replace("{id}", named), **body)


def chat(kind: str, changes: Callable[[str], Json]) -> Try:
    def ask(http: httpx.AsyncClient, named: str) -> Awaitable[httpx.Response]:
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], **changes(named)}
        return http.post("/v1/chat/completions", json=body)

    return kind, ask


def new_voice(http: httpx.AsyncClient, named: str) -> Awaitable[httpx.Response]:
    form = {"name": "me", "consent": named, "transcript": "words"}
    return http.post("/v1/audio/voices", data=form, files={"audio_sample": ("a.wav", CLIP, "audio/wav")})


def secret(http: httpx.AsyncClient, named: str) -> Awaitable[httpx.Response]:
    session = {"type": "realtime", "audio": {"output": {"voice": named}}}
    return http.post("/v1/realtime/client_secrets", json={"session": session})


def remembered(named: str) -> Json:
    said = {"role": "assistant", "audio": {"id": named}}
    return {"messages": [{"role": "user", "content": "a"}, said, {"role": "user", "content": "b"}]}


CONSENTS, VOICES, AUDIT = "/v1/audio/voice_consents", "/v1/audio/voices", "/v1/audio/voice_audit"
# method and route: every way in which it takes an id; none where it takes none, or only such as belong to nobody
ROUTES: dict[str, list[Try]] = {
    "POST /v1/chat/completions": [
        chat("voice", lambda named: {"audio": {"voice": named, "format": "wav"}}),
        chat("voice", lambda named: {"audio": {"voice": {"id": named}, "format": "wav"}}),
        chat("audio", remembered),
    ],
    "POST /v1/realtime/client_secrets": [("voice", secret)],
    "GET /v1/models": [],
    "GET /v1/models/{model:path}": [],  # the one model is everybody's
    "GET /v1/usage": [],
    f"GET {CONSENTS}": [path("consent", "GET", CONSENTS + "?after={id}")],
    f"POST {CONSENTS}": [],
    f"GET {CONSENTS}/{{id}}": [path("consent", "GET", CONSENTS + "/{id}")],
    f"POST {CONSENTS}/{{id}}": [path("consent", "POST", CONSENTS + "/{id}", json={"name": "mine"})],
    f"DELETE {CONSENTS}/{{id}}": [path("consent", "DELETE", CONSENTS + "/{id}")],
    f"GET {AUDIT}": [path("voice", "GET", AUDIT + "?after={id}")],
    f"GET {VOICES}": [path("voice", "GET", VOICES + "?after={id}")],
    f"POST {VOICES}": [("consent", new_voice)],
    f"GET {VOICES}/{{id}}": [path("voice", "GET", VOICES + "/{id}")],
    f"DELETE {VOICES}/{{id}}": [path("voice", "DELETE", VOICES + "/{id}")],
    "GET /v1/audio/speech": [],
    "POST /v1/audio/speech": [],
}


def named_by_routes(service: Service) -> Iterator[str]:
    for route in service.app._router.routes:
        assert isinstance(route, Route | WebSocketRoute), f"{route} is of a kind this test does not know"
        if isinstance(route, WebSocketRoute):
            assert route.path == "/v1/realtime", "another WebSocket needs a test of its own"
        elif route.path not in PUBLIC and not route.path.startswith((ADMIN, "/page/")):
            methods = set(route.methods or {"GET"}) - {"HEAD"}
            yield from (f"{method} {route.path}" for method in methods)


async def test_every_route_is_in_the_table(service: Service) -> None:
    assert set(named_by_routes(service)) == set(ROUTES)


@pytest.mark.parametrize("route", [route for route, tries in ROUTES.items() if tries])
async def test_a_foreign_id_is_answered_as_one_that_never_was(route: str, acme: Acme) -> None:
    for kind, ask in ROUTES[route]:
        foreign, unknown = acme.ids[kind], acme.never(kind)
        answers = [await ask(acme.zoo, named) for named in (foreign, unknown)]
        told = [
            (
                answer.status_code,
                answer.content.replace(named.encode(), b"ID"),
                {
                    name: value
                    for name, value in answer.headers.items()
                    if name not in PER_ANSWER and not name.startswith(OWN_SHARE)
                },
            )
            for answer, named in zip(answers, (foreign, unknown), strict=True)
        ]
        assert told[0] == told[1]
        listed = route in (f"GET {CONSENTS}", f"GET {VOICES}", f"GET {AUDIT}")
        assert answers[0].status_code == (200 if listed else 404)
        assert not listed or answers[0].json()["data"] == []


async def test_the_admin_api_opens_to_no_tenant(acme: Acme) -> None:
    for route in acme.service.app._router.routes:
        if isinstance(route, Route) and route.path.startswith(ADMIN):
            for method in route.methods or ():
                answer = await acme.zoo.request(method, route.path.replace("{tenant}", "acme"))
                assert answer.status_code == 404  # off, where no admin_key is set


def reply_to(named: str) -> Json:
    return {"conversation": "none", "input": [{"type": "item_reference", "id": named}]}


def spoken_in(named: str) -> Json:
    return {"audio": {"output": {"voice": named}}}


ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
# client event: every way in which it takes an id that was given out
EVENTS: dict[str, list[tuple[str, Callable[[str], Json]]]] = {
    "session.update": [("voice", lambda named: {"session": {"type": "realtime", **spoken_in(named)}})],
    "input_audio_buffer.append": [],
    "input_audio_buffer.commit": [],
    "input_audio_buffer.clear": [],
    "output_audio_buffer.clear": [],
    "conversation.item.create": [("item", lambda named: {"item": ITEM, "previous_item_id": named})],
    "conversation.item.delete": [("item", lambda named: {"item_id": named})],
    "conversation.item.retrieve": [("item", lambda named: {"item_id": named})],
    "conversation.item.truncate": [("item", lambda named: {"item_id": named, "content_index": 0, "audio_end_ms": 0})],
    "response.create": [
        ("item", lambda named: {"response": reply_to(named)}),
        ("voice", lambda named: {"response": spoken_in(named)}),
    ],
    "response.cancel": [("response", lambda named: {"response_id": named})],
}


def test_every_client_event_is_in_the_table() -> None:
    kinds = {get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(AnyEvent)}
    assert set(kinds) == set(EVENTS)
    for kind, event in kinds.items():
        takes = [name for name in event.model_fields if name.endswith("_id") and name != "event_id"]
        assert len(EVENTS[kind]) >= len(takes), f"{kind} takes {takes}"


async def test_a_foreign_id_in_an_event_is_told_as_one_that_never_was(acme: Acme) -> None:
    client = await Client.connect(acme.service, acme.zoo_key)
    try:
        for kind, tries in EVENTS.items():
            for what, fields in tries:
                told = []
                for named in (acme.ids[what], acme.never(what)):
                    count = len(client.all("error"))
                    await client.send(kind, **fields(named))
                    error = (await client.one("error", count + 1))["error"]
                    told.append(json.dumps(error).replace(named, "ID"))
                assert told[0] == told[1], kind
    finally:
        await client.close()


# field of a request: the kind of id; None where the client made it up itself
FIELDS: dict[str, str | None] = {
    "SessionConfig.voice_id": "voice",
    "ConverseRequest.request_id": None,
    "CancelResponse.response_id": "response",
    "TruncateResponse.response_id": "response",
}


def ids_in(message: Descriptor, seen: set[str]) -> Iterator[str]:
    if message.full_name in seen or not message.full_name.startswith("chroma."):
        return
    seen.add(message.full_name)
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from ids_in(field.message_type, seen)
        elif field.name == "id" or field.name.endswith(("_id", "_ids")):
            yield f"{message.name}.{field.name}"


def test_every_id_in_a_grpc_request_is_in_the_table() -> None:
    methods = pb.DESCRIPTOR.services_by_name["SpeechService"].methods
    seen: set[str] = set()
    assert {name for method in methods for name in ids_in(method.input_type, seen)} == set(FIELDS)


async def test_a_foreign_id_over_grpc_is_told_as_one_that_never_was(acme: Acme) -> None:
    metadata = (("authorization", f"Bearer {acme.zoo_key}"), ("x-request-id", "the-same"))
    user = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="hello")])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{acme.service.server.grpc_port}") as channel:
        speech = SpeechServiceStub(channel)
        told = []
        for named in (acme.ids["voice"], acme.never("voice")):
            config = pb.SessionConfig(voice_id=named)
            code, status = await refusal(
                speech.Generate(pb.GenerateRequest(config=config, messages=[user]), metadata=metadata)
            )
            assert code == grpc.StatusCode.NOT_FOUND
            told.append(status.SerializeToString().replace(named.encode(), b"ID"))
        assert told[0] == told[1]
        call = speech.Converse(metadata=metadata)
        await call.write(pb.ConverseRequest(config=pb.SessionConfig()))
        assert (await call.read()).HasField("session_ready")
        for message in (
            lambda named: {"cancel_response": pb.CancelResponse(response_id=named)},
            lambda named: {"truncate_response": pb.TruncateResponse(response_id=named)},
            lambda named: {"config": pb.SessionConfig(voice_id=named)},
        ):
            kind = "voice" if "config" in message("") else "response"
            told = []
            for named in (acme.ids[kind], acme.never(kind)):
                await call.write(pb.ConverseRequest(**message(named)))
                answer = await call.read()
                assert answer.HasField("error")
                told.append(answer.SerializeToString().replace(named.encode(), b"ID"))
            assert told[0] == told[1]
        call.cancel()
