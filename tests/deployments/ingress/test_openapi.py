"""The OpenAPI document says what there is: every route, and who may call it."""

import re
from typing import Any

import schemathesis
from starlette.routing import Route, WebSocketRoute

from deployments.ingress.admin_routes import ADMIN
from deployments.ingress.openapi.document import document
from tests.deployments.ingress.conftest import Service, Start

Json = dict[str, Any]
OPERATOR = "of the operator, whom everybody trusts"
PAGE = ("/", "/page/")  # what a browser shows is no API


def documented() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}


def offered(service: Service) -> set[tuple[str, str]]:
    found = set()
    for route in service.app._router.routes:
        assert isinstance(route, Route | WebSocketRoute), f"{route} is of a kind this test does not know"
        if isinstance(route, WebSocketRoute):
            assert route.path in document()["info"]["description"]
        elif route.path != PAGE[0] and not route.path.startswith(PAGE[1]):
            assert route.methods, f"{route.path} takes any method; name those it means"
            path = re.sub(r":\w+}", "}", route.path)
            found |= {(method, path) for method in route.methods - {"HEAD"}}
    return found


async def test_every_route_is_documented_and_nothing_else(direct: Service) -> None:
    assert documented() == offered(direct)


async def test_the_document_is_openapi_and_for_everybody(start: Start) -> None:
    answer = await (await start(auth=True)).http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == document()
    schemathesis.openapi.from_dict(answer.json()).validate()


async def test_a_key_is_asked_for_where_the_document_says_so_and_nowhere_else(start: Start) -> None:
    service = await start(auth=True, admin_key=OPERATOR)
    for method, path in documented():
        answer = await service.http.request(method, re.sub("{.*?}", "x", path))
        security = document()["paths"][path][method.lower()]["security"]
        assert (answer.status_code == 401) == bool(security), (method, path)
        if path.startswith(ADMIN):
            assert security == [{"operator": []}]


async def test_a_key_needs_the_scope_the_document_says(start: Start) -> None:
    service = await start(auth=True)
    keys = {scope: await service.key(scopes=[scope]) for scope in ("speech", "voices", "usage")}
    for method, path in documented():
        for security in document()["paths"][path][method.lower()]["security"]:
            for scope, key in keys.items() if "key" in security else ():
                bearer = {"authorization": f"Bearer {key}"}
                answer = await service.http.request(method, re.sub("{.*?}", "x", path), headers=bearer)
                assert (answer.status_code == 403) == (scope not in security["key"]), (method, path, scope)


async def test_a_refused_method_is_told_all_that_are_allowed(direct: Service) -> None:
    for _, path in documented():
        answer = await direct.http.put(re.sub("{.*?}", "x", path))
        allowed = {method for method, other in documented() if other == path}
        assert answer.status_code in (404, 405)
        if answer.status_code == 405:
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == allowed
