"""POST /v1/realtime/client_secrets: short-lived keys for browsers and apps, that open sessions and nothing else."""

from functools import partial
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import Field, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.ingress.json_body import parse_object
from deployments.ingress.openai_parse import told
from deployments.ingress.realtime.session_shape import SessionShape
from deployments.ingress.realtime.shapes import Shape
from deployments.ingress.services import Services
from deployments.ingress.session.ids import new_session_id
from deployments.ingress.voices import BUILT_IN_NAME


class ExpiresAfter(Shape):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=10, le=7200)] | None = None


class SecretRequest(Shape):
    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = Field(default_factory=dict)


class ClientSecrets:
    """The endpoint. The session's settings travel in the token and are checked before it is made."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        async with services.bodies.body(scope, receive) as body:
            parsed = await services.off_loop(partial(parse_object, body, services.config)) if body else {}
        try:
            request = SecretRequest.model_validate(parsed)
        except ValidationError as error:
            raise told(error, parsed) from None
        shape = SessionShape.default(services.config.model_id).updated(request.session)
        if shape.voice != BUILT_IN_NAME:
            await services.voices.resolve(shape.voice, scope["caller"], "session.audio.output.voice")
        secret = services.callers.client_secret(scope["caller"], request.session, request.expires_after.seconds)
        answer = {
            "value": secret.value,
            "expires_at": secret.expires_at,
            "session": {"id": new_session_id(), **shape.told()},
        }
        await Response(pydantic_core.to_json(answer), media_type="application/json")(scope, receive, send)
