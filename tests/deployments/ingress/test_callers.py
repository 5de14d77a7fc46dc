"""Keys, client secrets, and what each opens."""

import asyncio
import stat
from pathlib import Path

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import ChromaError, InvalidRequest, TooLarge, Unauthenticated
from deployments.ingress.api_key import ParsedKey, new_key, parse_key, pepper
from deployments.ingress.callers import EVERYBODY, Caller, Callers
from deployments.ingress.store.address import database_url
from tests.deployments.ingress.conftest import Service, Start

SECRET = "equal on all replicas"
OPEN = Caller(EVERYBODY, "open")


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_a_key_tells_its_tenant(start: Start) -> None:
    service = await start(auth=True)
    keys = [await service.key("acme"), await service.key("acme"), await service.key("zoo")]
    callers = service.app.services.callers
    one, two, other = [await callers.of_key(key) for key in keys]
    assert (one.tenant, two.tenant, other.tenant) == ("acme", "acme", "zoo")
    assert len({one.key_id, two.key_id, other.key_id}) == 3
    assert await callers.of_key(keys[0]) == one
    assert keys[0].startswith(f"ck_live_{one.key_id}_")


@given(st.data())
def test_nothing_but_the_shape_of_a_key_is_looked_up(data: st.DataObject) -> None:
    key = new_key().whole
    at = data.draw(st.integers(0, len(key) - 1))
    assert parse_key(key) is not None
    for wrong in (key[:at], key + "x", key[:at] + "-" + key[at + 1 :], f" {key}", f"{key}\n", key.upper()):
        assert parse_key(wrong) is None


async def test_without_authentication_everybody_is_one_tenant(service: Service) -> None:
    callers = service.app.services.callers
    assert await callers.of_key(None) == await callers.of_key("whatever") == await callers.of_key("")
    assert await callers.of_key(None) == OPEN


async def test_a_client_secret_is_valid_on_every_replica_until_it_expires(start: Start) -> None:
    now_s = 1_000_000.0
    service = await start(auth=True, token_secret=SECRET, key_cache_s=0.01)
    services = service.app.services
    one, two = (Callers(services.config, services.tenants, lambda: now_s) for _ in range(2))
    session = {"type": "realtime", "audio": {"output": {"voice": "default"}}}
    caller = await services.callers.of_key(await service.key("zoo"))
    secret = one.client_secret(caller, session, ttl_s=30)
    assert secret.value.startswith("ek_")
    assert secret.expires_at == now_s + 30
    now_s += 29
    known = await two.of_key(secret.value)
    assert (known.tenant, known.session, known.share) == ("zoo", session, caller.share)
    assert known.key_id == caller.key_id
    now_s += 1
    with pytest.raises(Unauthenticated, match="expired"):
        await two.of_key(secret.value)
    now_s -= 1
    await services.tenants.revoke("zoo", caller.key_id)
    await asyncio.sleep(0.02)
    with pytest.raises(Unauthenticated, match="revoked"):
        await two.of_key(secret.value)


async def test_a_client_secret_of_another_deployment_or_a_changed_one_is_refused(start: Start) -> None:
    callers, others = [(await start()).app.services.callers for _ in range(2)]
    value = callers.client_secret(OPEN, {}).value
    assert (await callers.of_key(value)).session == {}
    header, claims, signature = value.split(".")
    changed = [f"{header}.{claims[:-2]}AA.{signature}", f"{header}.{claims}.", f"{header}.{claims}", "ek_", "ek_.."]
    for wrong in changed:
        with pytest.raises(Unauthenticated, match="not valid here"):
            await callers.of_key(wrong)
    with pytest.raises(Unauthenticated, match="not valid here"):
        await others.of_key(value)


async def test_a_client_secret_fits_into_a_header_line(service: Service) -> None:
    callers = service.app.services.callers
    assert len(callers.client_secret(OPEN, {"instructions": "x" * 4000}).value) < 8192 - 512
    with pytest.raises(TooLarge, match="at most 4096"):
        callers.client_secret(OPEN, {"instructions": "x" * 5000})


ROUTES = [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/chroma"), ("GET", "/v1/nothing")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("wrong", [{}, bearer("wrong"), {"authorization": "Basic key-of-acme"}, bearer("ek_wrong")])
async def test_no_route_answers_a_stranger(start: Start, method: str, path: str, wrong: dict[str, str]) -> None:
    service = await start(auth=True)
    answer = await service.http.request(method, path, headers=wrong)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert error["message"].endswith(".")


async def test_the_sdk_sees_an_authentication_error_and_a_key_is_let_in(start: Start) -> None:
    service = await start(auth=True)
    with pytest.raises(openai.AuthenticationError) as told:
        await service.openai.models.list()
    assert told.value.code == "invalid_api_key"
    known = service.openai.with_options(api_key=await service.key())
    assert [model.id async for model in await known.models.list()] == ["chroma"]
    assert (await service.http.get("/healthz")).status_code == 200  # probes hold no key


async def test_a_client_secret_opens_nothing_but_sessions(service: Service) -> None:
    callers = service.app.services.callers
    secret = callers.client_secret(await callers.of_key(None), {})
    answer = await service.http.get("/v1/models", headers=bearer(secret.value))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_reply_of_one_tenant_is_unknown_to_another(start: Start) -> None:
    service = await start(auth=True)

    async def asked(key: str, **changes: object) -> httpx.Response:
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}], "audio": {}, **changes}
        return await service.http.post("/v1/chat/completions", json=body, headers=bearer(key))

    acme, second = await service.key(retention_s=60), await service.key()
    zoo = await service.key("zoo", retention_s=60)
    audio = (await asked(acme)).json()["choices"][0]["message"]["audio"]["id"]
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "audio": {"id": audio}},
        {"role": "user", "content": "and?"},
    ]
    assert (await asked(second, messages=history)).status_code == 200
    foreign = await asked(zoo, messages=history)
    history[1] = {"role": "assistant", "audio": {"id": audio[::-1]}}
    unknown = await asked(acme, messages=history)
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace(audio, "") == unknown.text.replace(audio[::-1], "")
    turns = service.speaker.turns
    assert turns[0].affinity == turns[1].affinity


async def test_tenants_share_no_prefix(start: Start) -> None:
    service = await start(auth=True)
    body = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}]}
    for key in (await service.key("acme"), await service.key("zoo")):
        answer = await service.http.post("/v1/chat/completions", json=body, headers=bearer(key))
        assert answer.status_code == 200
    one, two = service.speaker.turns
    assert one.affinity != two.affinity


async def test_errors_of_keys_say_no_more_than_they_should(start: Start) -> None:
    callers = (await start(auth=True)).app.services.callers
    for wrong in (None, "guess", "ek_guess"):
        with pytest.raises(ChromaError) as told:
            await callers.of_key(wrong)
        assert "guess" not in told.value.message
        assert "acme" not in told.value.message


async def test_a_key_opens_what_its_scopes_say(start: Start) -> None:
    service = await start(auth=True)
    asked = {
        "speech": ("GET", "/v1/models"),
        "voices": ("GET", "/v1/audio/voices"),
        "usage": ("GET", "/v1/usage"),
    }
    for scope in asked:
        key = await service.key(scopes=[scope])
        for wanted, (method, path) in asked.items():
            answer = await service.http.request(method, path, headers=bearer(key))
            assert answer.status_code == (200 if wanted == scope else 403), (scope, path)


async def test_a_key_that_is_revoked_expired_or_of_a_disabled_tenant_opens_nothing(start: Start) -> None:
    service = await start(auth=True, key_cache_s=0.01)
    tenants = service.app.services.tenants

    async def status(key: str) -> tuple[int, str]:
        await asyncio.sleep(0.02)
        answer = await service.http.get("/v1/models", headers=bearer(key))
        return answer.status_code, answer.json().get("error", {}).get("message", "")

    revoked, expiring, other = await service.key(), await service.key(expires_in_s=1), await service.key("zoo")
    assert [(await status(key))[0] for key in (revoked, expiring, other)] == [200, 200, 200]
    await tenants.revoke("acme", parsed(revoked).key_id)
    assert await status(revoked) == (401, "The API key was revoked; ask the operator for another.")
    await asyncio.sleep(1.1)
    assert await status(expiring) == (401, "The API key has expired; ask the operator for another.")
    await tenants.change("zoo", {"enabled": False})
    assert (await status(other))[0] == 403
    await tenants.erase("zoo")
    assert (await status(other))[0] == 401
    guessed = f"ck_live_{parsed(revoked).key_id}_{'x' * 43}"
    assert await status(guessed) == await status("guess")  # a stranger is not told that it was revoked


async def test_a_key_is_kept_as_a_hash_alone(start: Start, database: str) -> None:
    service = await start(auth=True)
    key = await service.key()
    found = await service.app.services.tenants.key(parsed(key).key_id)
    assert found is not None
    assert parsed(key).secret not in repr(vars(found[0]))
    stored = Path(database.removeprefix("sqlite:///"))
    assert parsed(key).secret.encode() not in b"".join(file.read_bytes() for file in stored.parent.glob("voices.db*"))
    assert stat.S_IMODE(stored.with_name("voices.db.key").stat().st_mode) == 0o600
    again = await start(auth=True)  # another replica, or after a restart
    assert (await again.http.get("/v1/models", headers=bearer(key))).status_code == 200
    other = await start(auth=True, key_secret="the operator's own")
    assert (await other.http.get("/v1/models", headers=bearer(key))).status_code == 401


def test_postgresql_needs_a_secret_of_the_operators() -> None:
    with pytest.raises(InvalidRequest, match=r"set models\.ingress\.key_secret"):
        pepper(None, database_url("postgresql://h/d"))


def parsed(key: str) -> ParsedKey:
    found = parse_key(key)
    assert found is not None
    return found
