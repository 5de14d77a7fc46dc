"""/v1/audio/voices and /v1/audio/voice_consents, in the shapes of OpenAI's clients; lists of voices are ours."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chroma_models.errors import InvalidRequest
from deployments.ingress.callers import Caller
from deployments.ingress.errors import UnknownRoute
from deployments.ingress.form_body import Form, parse_form, plain
from deployments.ingress.json_body import parse_object
from deployments.ingress.recording import kept
from deployments.ingress.services import Services
from deployments.ingress.store.tables import LANGUAGE_CHARS, Consent, Voice, VoiceAudit
from deployments.ingress.voice_audit import told_audit

Json = dict[str, Any]

PAGE, MAX_PAGE = 20, 100
BCP47 = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
MAX_CHANGE_BYTES = 1 << 16  # of a JSON body


class VoiceRoutes:
    """Everything here belongs to the caller's tenant."""

    def __init__(self, services: Services) -> None:
        self._services = services
        consents, voices = "/v1/audio/voice_consents", "/v1/audio/voices"
        self.routes = [
            Route(consents, self.create_consent, methods=["POST"]),
            Route(consents, self.list_consents, methods=["GET"]),
            Route(consents + "/{id}", self.consent, methods=["GET"]),
            Route(consents + "/{id}", self.rename_consent, methods=["POST"]),
            Route(consents + "/{id}", self.delete_consent, methods=["DELETE"]),
            Route(voices, self.create_voice, methods=["POST"]),
            Route(voices, self.list_voices, methods=["GET"]),
            Route(voices + "/{id}", self.voice, methods=["GET"]),
            Route(voices + "/{id}", self.delete_voice, methods=["DELETE"]),
            Route("/v1/audio/voice_audit", self.audit, methods=["GET"]),
            Route("/v1/audio/speech", speech, methods=["GET", "POST"]),
        ]

    async def create_consent(self, request: Request) -> Response:
        services, form = self._services, await self._form(request)
        form.only("name", "language", "recording")
        name = form.text("name", services.config.max_name_chars)
        language = form.text("language", LANGUAGE_CHARS)
        if not BCP47.fullmatch(language):
            raise InvalidRequest("'language' is no BCP 47 tag; write it like en-US.", "language")
        work = partial(kept, form.file("recording"), services.config.audio, "recording")
        recording, _ = await services.off_loop(work)
        consent = await services.store.add_consent(_caller(request), name, language, recording)
        return JSONResponse(_consent(consent))

    async def list_consents(self, request: Request) -> Response:
        rows, more = await self._services.store.page(Consent, _tenant(request), *_page(request))
        return JSONResponse(_list([_consent(row) for row in rows], more))

    async def consent(self, request: Request) -> Response:
        return JSONResponse(_consent(await self._services.store.consent(_tenant(request), request.path_params["id"])))

    async def rename_consent(self, request: Request) -> Response:
        services = self._services
        async with services.bodies.body(request.scope, request.receive, MAX_CHANGE_BYTES) as body:
            change = parse_object(body, services.config)
        name = change.pop("name", None)
        if change or not isinstance(name, str) or not name.strip():
            raise InvalidRequest('Send {"name": "..."}; nothing else of a consent can change.', "name")
        name = plain(name.strip(), "name", services.config.max_name_chars)
        return JSONResponse(
            _consent(await services.store.rename_consent(_caller(request), request.path_params["id"], name))
        )

    async def delete_consent(self, request: Request) -> Response:
        consent_id = request.path_params["id"]
        await self._services.store.delete_consent(_caller(request), consent_id)
        return JSONResponse({"id": consent_id, "object": "audio.voice_consent", "deleted": True})

    async def create_voice(self, request: Request) -> Response:
        services, form = self._services, await self._form(request)
        limits = services.config.audio
        if form.fields.get("type", "audio_sample") != "audio_sample":
            raise InvalidRequest("A voice is made of a recording; send type 'audio_sample' and one.", "type")
        form.only("name", "audio_sample", "consent", "transcript", "type")
        name = form.text("name", services.config.max_name_chars)
        consent = form.text(
            "consent", 64, "; a voice needs the id of a recorded consent, POST /v1/audio/voice_consents"
        )
        hint = "; send the words spoken in the recording (with OpenAI's client: extra_body={'transcript': ...})"
        transcript = form.text("transcript", limits.max_transcript_chars, hint)
        data = form.file("audio_sample")
        await services.store.consent(_tenant(request), consent, "consent")
        clip, audio_s = await services.off_loop(partial(kept, data, limits, "audio_sample"))
        codes, codec = await services.voices.encode(clip)
        share = _caller(request).share
        told = (name, consent, transcript, audio_s, clip, codes, codec, share.voices if share else None)
        voice = await services.store.add_voice(_caller(request), *told)
        return JSONResponse(_voice(voice))

    async def list_voices(self, request: Request) -> Response:
        rows, more = await self._services.store.page(Voice, _tenant(request), *_page(request))
        return JSONResponse(_list([_voice(row) for row in rows], more))

    async def voice(self, request: Request) -> Response:
        return JSONResponse(_voice(await self._services.store.voice(_tenant(request), request.path_params["id"])))

    async def delete_voice(self, request: Request) -> Response:
        voice_id = request.path_params["id"]
        await self._services.store.delete_voice(_caller(request), voice_id)
        return JSONResponse({"id": voice_id, "object": "audio.voice.deleted", "deleted": True})

    async def audit(self, request: Request) -> Response:
        """Who made, used and deleted what; newest first."""
        rows, more = await self._services.store.page(VoiceAudit, _tenant(request), *_page(request))
        return JSONResponse(_list([told_audit(row) for row in rows], more))

    async def _form(self, request: Request) -> Form:
        services, limit = self._services, self._services.config.max_upload_bytes
        async with services.bodies.body(request.scope, request.receive, limit) as body:
            return await services.off_loop(partial(parse_form, request.scope, body))


async def speech(request: Request) -> Response:
    """Reading a text aloud word by word is not what this model does: it answers."""
    raise UnknownRoute(
        "Text to speech is not offered here: the model answers, it does not read aloud. Use POST /v1/chat/completions "
        'with modalities ["text", "audio"] for a spoken answer, or /v1/realtime for a conversation.'
    )


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope["caller"]
    return caller


def _tenant(request: Request) -> str:
    return _caller(request).tenant


def _page(request: Request) -> tuple[str | None, int]:
    """after and limit. Raises InvalidRequest."""
    limit = request.query_params.get("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_PAGE:
        raise InvalidRequest(f"'limit' is a number from 1 to {MAX_PAGE}.", "limit")
    return request.query_params.get("after"), int(limit)


def _list(data: Sequence[Json], more: bool) -> Json:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": more, **ends}


def _consent(row: Consent) -> Json:
    return {
        "id": row.id,
        "object": "audio.voice_consent",
        "created_at": row.created_at,
        "name": row.name,
        "language": row.language,
    }


def _voice(row: Voice) -> Json:
    """OpenAI's fields, and ours: consent, transcript, audio_s."""
    return {
        "id": row.id,
        "object": "audio.voice",
        "created_at": row.created_at,
        "name": row.name,
        "type": "audio_sample",
        "consent": row.consent_id,
        "transcript": row.transcript,
        "audio_s": round(row.audio_s, 3),
    }
