"""/v1/admin: what an operator may do, and nobody else."""

from typing import Any

import httpx
import pytest

from deployments.ingress.callers import Caller
from tests.deployments.ingress.conftest import Service, Start

ADMIN_KEY = "the operator's own key, of 32 characters or more"
HEADERS = {"authorization": f"Bearer {ADMIN_KEY}"}
BY_NAME = [
    ("GET", "/v1/admin/tenants/nobody", None),
    ("PATCH", "/v1/admin/tenants/nobody", {}),
    ("DELETE", "/v1/admin/tenants/nobody", None),
    ("GET", "/v1/admin/tenants/nobody/keys", None),
    ("POST", "/v1/admin/tenants/nobody/keys", {}),
    ("DELETE", "/v1/admin/tenants/nobody/keys/none", None),
]


@pytest.fixture
async def service(start: Start) -> Service:
    return await start(auth=True, admin_key=ADMIN_KEY, key_cache_s=0.01)


async def do(service: Service, method: str, path: str, body: Any = None) -> httpx.Response:
    return await service.http.request(method, f"/v1/admin/{path}", headers=HEADERS, json=body)


async def test_a_tenant_from_the_first_key_to_the_last(service: Service) -> None:
    made = await do(service, "POST", "tenants", {"id": "acme", "streams": 3, "priority": "high"})
    tenant = made.json()
    assert made.status_code == 201
    assert (tenant["id"], tenant["streams"], tenant["priority"], tenant["voices"]) == ("acme", 3, "high", 100)
    key = (await do(service, "POST", "tenants/acme/keys", {"name": "first", "scopes": ["speech"]})).json()
    assert (key["name"], key["scopes"], key["expires_at"]) == ("first", ["speech"], None)
    mine = {"authorization": f"Bearer {key['key']}"}
    assert (await service.http.get("/v1/models", headers=mine)).status_code == 200

    (listed,) = (await do(service, "GET", "tenants/acme/keys")).json()["data"]
    assert listed == {name: value for name, value in key.items() if name != "key"}
    changed = (await do(service, "PATCH", "tenants/acme", {"streams": 1, "audio_s_per_day": 60})).json()
    assert (changed["streams"], changed["audio_s_per_day"], changed["priority"]) == (1, 60.0, "high")
    assert (await do(service, "GET", "tenants/acme")).json() == changed
    assert (await do(service, "GET", "tenants")).json()["data"] == [changed]

    revoked = (await do(service, "DELETE", f"tenants/acme/keys/{key['id']}")).json()
    assert revoked["revoked_at"] is not None
    gone = (await do(service, "DELETE", "tenants/acme")).json()
    assert (gone["object"], gone["keys"]) == ("tenant.erased", 1)
    assert (await do(service, "GET", "tenants")).json()["data"] == []


async def test_erasing_a_tenant_leaves_nothing_of_it(service: Service) -> None:
    from sqlalchemy import select

    from deployments.ingress.store.tables import Base

    key, other = await service.key("acme"), await service.key("zoo")
    services = service.app.services
    for tenant in ("acme", "zoo"):
        consent = await services.store.add_consent(Caller(tenant, "key"), "me", "en", b"flac")
        await services.store.add_voice(Caller(tenant, "key"), "v", consent.id, "words", 3.0, b"flac", b"codes", "codec")
    for secret in (key, other):
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}]}
        answer = await service.http.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
        )
        assert answer.status_code == 200
    await services.ledger.close()
    assert (await do(service, "DELETE", "tenants/acme")).json()["usage"] == 1
    of_tenants = [table for table in Base.metadata.tables.values() if "tenant" in table.c]
    assert len(of_tenants) >= 6
    async with services.database.session() as session:
        for table in of_tenants:
            left = set((await session.scalars(select(table.c.tenant))).all())
            assert left == {"zoo"}, table.name


@pytest.mark.parametrize(("method", "path", "body"), BY_NAME)
async def test_who_is_unknown_is_said_so(service: Service, method: str, path: str, body: Any) -> None:
    answer = await service.http.request(method, path, headers=HEADERS, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        404,
        "key_not_found" if path.endswith("none") else "tenant_not_found",
    )


@pytest.mark.parametrize(("method", "path", "body"), [*BY_NAME, ("GET", "/v1/admin/tenants", None)])
async def test_a_tenants_key_is_no_operators(service: Service, method: str, path: str, body: Any) -> None:
    for key in (await service.key(), "x"):
        answer = await service.http.request(method, path, headers={"authorization": f"Bearer {key}"}, json=body)
        assert answer.status_code == 401
    assert (await service.http.request(method, path, json=body)).status_code == 401


async def test_without_an_admin_key_there_is_no_admin_api(start: Start) -> None:
    service = await start(auth=True)
    for key in (await service.key(), "x"):
        answer = await service.http.get("/v1/admin/tenants", headers={"authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "acme", "streams": -1}, "streams"),
        ({"id": "acme", "weight": 0}, "weight"),
        ({"id": "acme", "priority": "highest"}, "priority"),
        ({"id": "acme", "colour": "red"}, "colour"),
        ({"id": "zoo"}, "id"),
    ],
)
async def test_a_wrong_tenant_is_told_by_field(service: Service, body: dict[str, Any], param: str) -> None:
    await service.key("zoo")
    answer = await do(service, "POST", "tenants", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_voices_have_a_quota(service: Service) -> None:
    from chroma_models.errors import QuotaExceeded

    await service.key("acme", voices=1)
    store = service.app.services.store
    consent = await store.add_consent(Caller("acme", "key"), "me", "en", b"flac")
    told = ("v", consent.id, "words", 3.0, b"flac", b"codes", "codec", 1)
    await store.add_voice(Caller("acme", "key"), *told)
    with pytest.raises(QuotaExceeded, match="1 voices") as refused:
        await store.add_voice(Caller("acme", "key"), *told)
    assert refused.value.quota == "voices"
