"""Everything the ingress says over HTTP."""

from collections.abc import Iterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from chroma_models.errors import UnknownModel
from chroma_models.types import Sampling
from deployments.ingress.admin_routes import ADMIN, AdminRoutes, Operators
from deployments.ingress.callers import needs_key, scope_of
from deployments.ingress.chat import ChatCompletions
from deployments.ingress.config import IngressConfig
from deployments.ingress.edge import Edge
from deployments.ingress.errors import MethodNotAllowed, UnknownRoute
from deployments.ingress.log_context import TENANT
from deployments.ingress.openapi import document
from deployments.ingress.provenance.statement import KEYS_PATH
from deployments.ingress.realtime.client_secrets import ClientSecrets
from deployments.ingress.realtime.endpoint import Realtime
from deployments.ingress.services import Services
from deployments.ingress.speaker import Speaker
from deployments.ingress.usage_route import UsageRoute
from deployments.ingress.voice_routes import VoiceRoutes
from deployments.ingress.web_page import page_routes


class IngressApp:
    """The ASGI application over one Speaker. health.ready is for the owner to set, once a turn has been spoken."""

    def __init__(self, speaker: Speaker, config: IngressConfig, default_sampling: Sampling, created_s: int = 0) -> None:
        """created_s: Unix second at which the model was made, as /v1/models tells it."""
        self.services = Services(speaker, config, default_sampling)
        self.health = self.services.health
        self._model = {"id": config.model_id, "object": "model", "created": created_s, "owned_by": "chroma-serve"}
        routes = [
            Route("/v1/chat/completions", ChatCompletions(self.services), methods=["POST"]),
            WebSocketRoute("/v1/realtime", Realtime(self.services)),
            Route("/v1/realtime/client_secrets", ClientSecrets(self.services), methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{model:path}", self._one_model),
            *VoiceRoutes(self.services).routes,
            Route("/v1/usage", UsageRoute(self.services), methods=["GET"]),
            *AdminRoutes(self.services).routes,
            Route(KEYS_PATH, self.services.provenance.keys),
            document.route(),
            Route("/healthz", self._alive),
            Route("/readyz", self._ready),
            Route("/-/healthz", self._serving),
            *page_routes(),
        ]
        self._operators = Operators(config.admin_key)
        self._router = Router(routes, redirect_slashes=False)
        self._edge = Edge(self._route, config, self.health)

    def reconfigure(self, config: IngressConfig) -> None:
        """Change the limits of a turn; what else differs takes effect with the next start."""
        self.services.reconfigure(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._edge(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """With an "app" in its scope the router raises what it refuses, rather than answering in its own words.

        Whatever lies under /v1 needs a caller, what does not exist there too; public keys alone are for everybody.
        Endpoints find it as scope["caller"].
        """
        scope = {**scope, "app": self}
        if scope["type"] == "http" and scope["path"].startswith(ADMIN):
            self._operators.check(scope)
        elif scope["type"] == "http" and needs_key(scope["path"]):
            scope["caller"] = caller = await self.services.callers.of_scope(scope)
            TENANT.set(caller.tenant)
            caller.check(scope_of(scope["path"]))
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            asked = f"{scope.get('method', scope['type'])} {scope['path'][:200]}"
            if error.status_code == 405:
                allowed = ", ".join(sorted(self._methods(scope)))
                raise MethodNotAllowed(f"{asked} is not allowed; use {allowed}.", allowed) from None
            raise UnknownRoute(f"There is nothing at {asked}.") from None

    def _methods(self, scope: Scope) -> Iterator[str]:
        """Of every route with this path; the router tells those of the first alone."""
        for route in self._router.routes:
            if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
                yield from route.methods or ()

    async def open(self) -> None:
        """Before the first request. Raises UnusableDatabase, InvalidRequest."""
        await self.services.open()

    async def close(self) -> None:
        await self.services.close()

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model]})

    async def _one_model(self, request: Request) -> Response:
        if request.path_params["model"] != self._model["id"]:
            raise UnknownModel("This model does not exist; GET /v1/models lists what there is.", "model")
        return JSONResponse(self._model)

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        if self.health.draining:
            return JSONResponse({"status": "draining"}, 503)
        if not self.health.ready:
            return JSONResponse({"status": "starting"}, 503)
        probed = self.health.probed
        return JSONResponse({"status": "ready", **({"probe": probed.told()} if probed else {})})

    async def _serving(self, request: Request) -> Response:
        """Asked by load balancers and by KubeRay, which looks for the word `success`."""
        return PlainTextResponse("draining", 503) if self.health.draining else PlainTextResponse("success")
