"""Requests that the OpenAPI document allows, and some that it does not, at every route it tells of."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deployments.ingress.admin_routes import ADMIN
from deployments.ingress.app import IngressApp
from deployments.ingress.config import IngressConfig
from deployments.ingress.openapi.document import document
from deployments.ingress.tenants import NewKey, TenantChange, make_key
from tests.deployments.ingress.conftest import DEFAULTS
from tests.deployments.ingress.scripted import Scripted, file_of, tone

OPERATOR = "of the operator, whom everybody trusts"
URL = "http://ingress"
HUNG_S = 120.0
TENANT, OTHER = "acme", "other"  # whose key asks, and whom the operator's routes are asked about
FILES = ("recording", "audio_sample")
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,  # of errors too: each is a typed one
]


@dataclass(frozen=True)
class Asked:
    """A request as it was drawn. key: none, the right one, one of another kind, or whatever the case brought."""

    case: Case
    key: str
    known: bool  # ids are of what there is, recordings are recordings

    def request(self, service: "Service") -> httpx.Request:
        case, keys = self.case, service.keys
        if self.known:
            ids = {
                **service.ids,
                "id": service.ids["consent" if "consent" in case.path else "voice"],
                "model": "chroma",
            }
            case.path_parameters = {name: ids.get(name, value) for name, value in (case.path_parameters or {}).items()}
            if isinstance(case.body, dict):
                there = {**dict.fromkeys(FILES, service.clip), "consent": ids["consent"], "model": "chroma"}
                case.body |= {name: value for name, value in there.items() if name in case.body}
                if isinstance(audio := case.body.get("audio"), dict):
                    case.body["audio"] = {**audio, "voice": ids["voice"]}
        asked = case.as_transport_kwargs(base_url=URL)
        made = requests.Request(**{name: asked[name] for name in asked if name in TAKEN}).prepare()
        headers = {name: value for name, value in made.headers.items() if name.lower() != "connection"}
        if self.key != "drawn":
            headers.pop("Authorization", None)
        if self.key in keys:
            headers["Authorization"] = f"Bearer {keys[self.key]}"
        return httpx.Request(made.method or "", made.url or "", headers=headers, content=made.body or b"")


TAKEN = {"method", "url", "headers", "files", "data", "params", "json", "cookies"}


@dataclass
class Service:
    """The application without its server, and what a tenant has there."""

    app: IngressApp
    speaker: Scripted
    http: httpx.AsyncClient
    clip: bytes
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def open(cls) -> "Service":
        database = f"sqlite:///{Path(mkdtemp(prefix='chroma-fuzz-')) / 'voices.db'}"
        config = IngressConfig(http_port=0, grpc_port=None, database_url=database, admin_key=OPERATOR)
        speaker = Scripted()
        app = IngressApp(speaker, config, DEFAULTS)
        await app.open()
        app.health.ready = True
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)
        service = cls(app, speaker, http, file_of(tone(4 * 24_000, 24_000), 24_000))
        services = app.services
        await services.tenants.add(TENANT, TenantChange(streams=100).said())
        _, key = await make_key(services.tenants, services.key_hash(), TENANT, NewKey())
        service.keys = {"tenant": key, "operator": OPERATOR, "foreign": f"{key[:-1]}{'A' if key[-1] != 'A' else 'B'}"}
        await service.fill()
        return service

    async def fill(self) -> None:
        """Puts back what a case may have deleted."""
        services = self.app.services
        if OTHER not in {known.id for known in await services.tenants.tenants()}:
            await services.tenants.add(OTHER, {})
            made, _ = await make_key(services.tenants, services.key_hash(), OTHER, NewKey())
            self.ids |= {"tenant": OTHER, "key": made.id}
        if "consent" not in self.ids or not await self._there("voice_consents", self.ids["consent"]):
            self.ids["consent"] = await self._made("voice_consents", {"name": "me", "language": "en"}, "recording")
        if "voice" not in self.ids or not await self._there("voices", self.ids["voice"]):
            form = {"name": "me", "consent": self.ids["consent"], "transcript": "words"}
            self.ids["voice"] = await self._made("voices", form, "audio_sample")
        self.speaker.turns.clear()
        self.speaker.clips.clear()

    async def _there(self, what: str, known: str) -> bool:
        return (await self.http.get(f"/v1/audio/{what}/{known}", headers=self._bearer)).status_code == 200

    async def _made(self, what: str, form: dict[str, str], name: str) -> str:
        files = {name: ("a.wav", self.clip, "audio/wav")}
        answer = await self.http.post(f"/v1/audio/{what}", headers=self._bearer, data=form, files=files)
        return str(answer.json()["id"])

    @property
    def _bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys['tenant']}"}

    async def close(self) -> None:
        await self.http.aclose()
        await self.app.close()


def run(cases: int, first_seed: int = 1) -> dict[str, Any]:
    """Figures as the other targets have them. Raises what was found, with the request as a curl command."""
    loop = asyncio.new_event_loop()
    service = loop.run_until_complete(Service.open())
    every = [found.ok() for found in schemathesis.openapi.from_dict(document()).get_all_operations()]
    done, longest_s, rounds = 0, 0.0, 0

    def once(asked: Asked) -> None:
        nonlocal done, longest_s
        request = asked.request(service)
        began = time.process_time()
        answer = loop.run_until_complete(asyncio.wait_for(service.http.send(request), HUNG_S))
        longest_s = max(longest_s, time.process_time() - began)
        done += 1
        _check(asked, answer)
        if (request.method == "DELETE" and answer.status_code == 200) or done % 1_000 == 0:
            loop.run_until_complete(service.fill())

    try:
        while done < cases:
            for i, operation in enumerate(every):
                chosen = settings(
                    max_examples=max(1, (cases - done) // (len(every) - i)),
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                seed(first_seed + rounds * len(every) + i)(chosen(given(asked=_asked(operation))(once)))()
            rounds += 1
    finally:
        loop.run_until_complete(service.close())
        loop.close()
    return {"cases": done, "longest_cpu_s": round(longest_s, 3)}


def _asked(operation: Any) -> st.SearchStrategy[Asked]:
    raw = operation.definition.raw
    right = "operator" if operation.path.startswith(ADMIN) else "tenant"
    modes = [GenerationMode.POSITIVE]
    if raw["security"] or "parameters" in raw or "requestBody" in raw:  # else there is nothing to be wrong
        modes.append(GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))
    keys = st.sampled_from([right] * 6 + ["tenant", "operator", "foreign", "none", "drawn"])
    return st.builds(Asked, cases, keys, st.booleans())


def _check(asked: Asked, answer: httpx.Response) -> None:
    told = f"{answer.request.method} {answer.request.url}, key {asked.key}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code < 500, told
    operation = asked.case.operation
    if operation.definition.raw["security"] and asked.key in ("foreign", "none"):
        assert answer.status_code == 401, told
    if "text/event-stream" in answer.headers["content-type"]:
        assert answer.text.endswith("data: [DONE]\n\n"), told
    asked.case.validate_response(answer, checks=CHECKS)
