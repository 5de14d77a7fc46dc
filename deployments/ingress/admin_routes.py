"""/v1/admin: tenants and their keys, for whoever holds the operator's own key."""

import hmac
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from chroma_models.errors import Unauthenticated
from deployments.ingress.callers import bearer
from deployments.ingress.errors import UnknownRoute
from deployments.ingress.json_body import parse_object
from deployments.ingress.openai_parse import told
from deployments.ingress.services import Services
from deployments.ingress.tenants import (
    NewKey,
    NewTenant,
    TenantChange,
    make_key,
    told_key,
    told_list,
    told_tenant,
)

Body = TypeVar("Body", bound=BaseModel)

ADMIN = "/v1/admin/"
MAX_BODY_BYTES = 1 << 16


class Operators:
    """Without an admin_key there is nothing at /v1/admin/."""

    def __init__(self, admin_key: str | None) -> None:
        self._key = admin_key.encode() if admin_key else None

    def check(self, scope: Scope) -> None:
        """Raises UnknownRoute, Unauthenticated."""
        if self._key is None:
            raise UnknownRoute("The admin API is off; set models.ingress.admin_key to turn it on.")
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
        if not hmac.compare_digest((bearer(sent) or "").encode(), self._key):
            raise Unauthenticated("This is not the operator's key; send 'Authorization: Bearer ADMIN_KEY'.")


class AdminRoutes:
    def __init__(self, services: Services) -> None:
        self._services, self._tenants = services, services.tenants
        tenants = ADMIN + "tenants"
        keys = tenants + "/{tenant}/keys"
        self.routes = [
            Route(tenants, self.list_tenants, methods=["GET"]),
            Route(tenants, self.add_tenant, methods=["POST"]),
            Route(tenants + "/{tenant}", self.tenant, methods=["GET"]),
            Route(tenants + "/{tenant}", self.change_tenant, methods=["PATCH"]),
            Route(tenants + "/{tenant}", self.erase_tenant, methods=["DELETE"]),
            Route(keys, self.list_keys, methods=["GET"]),
            Route(keys, self.add_key, methods=["POST"]),
            Route(keys + "/{key}", self.revoke_key, methods=["DELETE"]),
        ]

    async def list_tenants(self, request: Request) -> Response:
        return JSONResponse(told_list([told_tenant(tenant) for tenant in await self._tenants.tenants()]))

    async def add_tenant(self, request: Request) -> Response:
        wanted = await self._body(request, NewTenant)
        return JSONResponse(told_tenant(await self._tenants.add(wanted.id, wanted.said())), 201)

    async def tenant(self, request: Request) -> Response:
        return JSONResponse(told_tenant(await self._tenants.tenant(request.path_params["tenant"])))

    async def change_tenant(self, request: Request) -> Response:
        change = await self._body(request, TenantChange)
        return JSONResponse(told_tenant(await self._tenants.change(request.path_params["tenant"], change.said())))

    async def erase_tenant(self, request: Request) -> Response:
        tenant = request.path_params["tenant"]
        erased = await self._tenants.erase(tenant)
        gone = {"consents": erased.consents, "keys": erased.keys, "usage": erased.usage}
        return JSONResponse({"id": tenant, "object": "tenant.erased", **gone})

    async def list_keys(self, request: Request) -> Response:
        keys = await self._tenants.keys(request.path_params["tenant"])
        return JSONResponse(told_list([told_key(key) for key in keys]))

    async def add_key(self, request: Request) -> Response:
        wanted = await self._body(request, NewKey)
        key_hash = await self._services.off_loop(self._services.key_hash)
        kept, key = await make_key(self._tenants, key_hash, request.path_params["tenant"], wanted)
        return JSONResponse({**told_key(kept), "key": key}, 201)

    async def revoke_key(self, request: Request) -> Response:
        return JSONResponse(
            told_key(await self._tenants.revoke(request.path_params["tenant"], request.path_params["key"]))
        )

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        services = self._services
        async with services.bodies.body(request.scope, request.receive, MAX_BODY_BYTES) as body:
            parsed = await services.off_loop(partial(parse_object, body, services.config)) if body else {}
        try:
            return kind.model_validate(parsed)
        except ValidationError as error:
            raise told(error, parsed) from None
