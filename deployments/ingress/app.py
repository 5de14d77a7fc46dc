"""Everything the ingress says over HTTP."""

from concurrent.futures import ThreadPoolExecutor

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from chroma_models.errors import UnknownModel
from chroma_models.types import Sampling
from deployments.ingress.chat import ChatCompletions
from deployments.ingress.config import IngressConfig
from deployments.ingress.edge import Edge
from deployments.ingress.errors import MethodNotAllowed, UnknownRoute
from deployments.ingress.health import Health
from deployments.ingress.speaker import Speaker
from deployments.ingress.voices import VoiceBook


class IngressApp:
    """The ASGI application over one Speaker. health.ready is for the owner to set, once a turn has been spoken."""

    def __init__(self, speaker: Speaker, config: IngressConfig, default_sampling: Sampling, created_s: int = 0) -> None:
        """created_s: Unix second at which the model was made, as /v1/models tells it."""
        self.config = config
        self.health = Health()
        self._model = {"id": config.model_id, "object": "model", "created": created_s, "owned_by": "chroma-serve"}
        self._pool = ThreadPoolExecutor(config.audio.threads, thread_name_prefix="audio")
        self._chat = ChatCompletions(speaker, config, default_sampling, self.health, self._pool)
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{model:path}", self._one_model),
            Route("/healthz", self._alive),
            Route("/readyz", self._ready),
            Route("/-/healthz", self._serving),
        ]
        self._router = Router(routes, redirect_slashes=False)
        self._edge = Edge(self._route, config, self.health)

    def reconfigure(self, config: IngressConfig) -> None:
        """Change the limits of a turn; what else differs takes effect with the next start."""
        self.config = config
        self._chat.reconfigure(config)

    @property
    def voices(self) -> VoiceBook:
        """Where a warm-up turn gets its voice."""
        return self._chat.voices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._edge(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """With an "app" in its scope the router raises what it refuses, rather than answering in its own words."""
        try:
            await self._router({**scope, "app": self}, receive, send)
        except HTTPException as error:
            asked = f"{scope.get('method', scope['type'])} {scope['path'][:200]}"
            if error.status_code == 405:
                allowed = (error.headers or {}).get("Allow", "")
                raise MethodNotAllowed(f"{asked} is not allowed; use {allowed}.", allowed) from None
            raise UnknownRoute(f"There is nothing at {asked}.") from None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

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
        return JSONResponse({"status": "ready"}) if self.health.ready else JSONResponse({"status": "starting"}, 503)

    async def _serving(self, request: Request) -> Response:
        """Asked by load balancers and by KubeRay, which looks for the word `success`."""
        return PlainTextResponse("draining", 503) if self.health.draining else PlainTextResponse("success")
