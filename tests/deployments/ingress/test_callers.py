"""Keys, client secrets, and what each opens."""

from pathlib import Path

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import ChromaError, InvalidRequest, TooLarge, Unauthenticated
from deployments.ingress.callers import EVERYBODY, Callers, read_keys
from deployments.ingress.config import IngressConfig
from tests.deployments.ingress.conftest import Service, Start

KEYS = "# tenant key\n\nacme  key-of-acme\nacme second-key-of-acme\nzoo key-of-zoo\n"
SECRET = "equal on all replicas"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(KEYS)
    return file


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_a_key_tells_its_tenant(keys: Path) -> None:
    callers = Callers(IngressConfig(api_keys_file=keys))
    one, two, other = (callers.of_key(key) for key in ("key-of-acme", "second-key-of-acme", "key-of-zoo"))
    assert (one.tenant, two.tenant, other.tenant) == ("acme", "acme", "zoo")
    assert len({one.key_id, two.key_id, other.key_id}) == 3
    assert callers.of_key("key-of-acme") == one
    assert "acme" not in one.key_id
    assert Callers(IngressConfig(api_keys_file=keys)).of_key("key-of-acme") == one  # on every replica


@given(st.one_of(st.none(), st.text(), st.sampled_from(["key-of-acm", "key-of-acme ", "KEY-OF-ACME", "acme"])))
def test_nothing_but_a_key_is_a_key(wrong: str | None) -> None:
    callers = Callers(IngressConfig(token_secret=SECRET))
    callers._keys = {callers._hash("key-of-acme"): callers.of_key(None)}
    with pytest.raises(Unauthenticated):
        callers.of_key(wrong)


def test_without_a_key_file_everybody_is_one_tenant() -> None:
    callers = Callers(IngressConfig())
    assert callers.of_key(None) == callers.of_key("whatever") == callers.of_key("")
    assert callers.of_key(None).tenant == EVERYBODY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acme key\nacme\n", "Line 2 .* is not `tenant key`"),
        ("acme key more\n", "Line 1 .* is not `tenant key`"),
        ("acme/x key\n", "Line 1 .* names a tenant"),
        ("acme ek_key\n", "Line 1 .* only client secrets"),
        ("acme key\nzoo key\n", "Line 2 .* repeats a key"),
        ("# none\n", "holds none"),
    ],
)
def test_a_wrong_key_file_is_told_by_line_and_never_by_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=words) as told:
        read_keys(file)
    assert "key more" not in told.value.message
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_keys(tmp_path / "no such file")


def test_a_client_secret_is_valid_on_every_replica_until_it_expires(keys: Path) -> None:
    now_s = 1_000_000.0
    config = IngressConfig(api_keys_file=keys, token_secret=SECRET)
    one, two = (Callers(config, lambda: now_s) for _ in range(2))
    session = {"type": "realtime", "audio": {"output": {"voice": "default"}}}
    secret = one.client_secret(one.of_key("key-of-zoo"), session, ttl_s=30)
    assert secret.value.startswith("ek_")
    assert secret.expires_at == now_s + 30
    now_s += 29
    caller = two.of_key(secret.value)
    assert (caller.tenant, caller.session) == ("zoo", session)
    assert caller.key_id == one.of_key("key-of-zoo").key_id
    now_s += 1
    with pytest.raises(Unauthenticated, match="expired"):
        two.of_key(secret.value)


def test_a_client_secret_of_another_deployment_or_a_changed_one_is_refused() -> None:
    callers, others = Callers(IngressConfig()), Callers(IngressConfig())
    value = callers.client_secret(callers.of_key(None), {}).value
    assert callers.of_key(value).session == {}
    header, claims, signature = value.split(".")
    changed = [f"{header}.{claims[:-2]}AA.{signature}", f"{header}.{claims}.", f"{header}.{claims}", "ek_", "ek_.."]
    for wrong in changed:
        with pytest.raises(Unauthenticated, match="not valid here"):
            callers.of_key(wrong)
    with pytest.raises(Unauthenticated, match="not valid here"):
        others.of_key(value)


def test_a_client_secret_fits_into_a_header_line() -> None:
    callers = Callers(IngressConfig())
    caller = callers.of_key(None)
    assert len(callers.client_secret(caller, {"instructions": "x" * 4000}).value) < 8192 - 512
    with pytest.raises(TooLarge, match="at most 4096"):
        callers.client_secret(caller, {"instructions": "x" * 5000})


ROUTES = [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/chroma"), ("GET", "/v1/nothing")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("wrong", [{}, bearer("wrong"), {"authorization": "Basic key-of-acme"}, bearer("ek_wrong")])
async def test_no_route_answers_a_stranger(
    start: Start, keys: Path, method: str, path: str, wrong: dict[str, str]
) -> None:
    service = await start(api_keys_file=keys)
    answer = await service.http.request(method, path, headers=wrong)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert error["message"].endswith(".")


async def test_the_sdk_sees_an_authentication_error_and_a_key_is_let_in(start: Start, keys: Path) -> None:
    service = await start(api_keys_file=keys)
    with pytest.raises(openai.AuthenticationError) as told:
        await service.openai.models.list()
    assert told.value.code == "invalid_api_key"
    known = service.openai.with_options(api_key="key-of-acme")
    assert [model.id async for model in await known.models.list()] == ["chroma"]
    assert (await service.http.get("/healthz")).status_code == 200  # probes hold no key


async def test_a_client_secret_opens_nothing_but_sessions(service: Service) -> None:
    callers = service.app.services.callers
    secret = callers.client_secret(callers.of_key(None), {})
    answer = await service.http.get("/v1/models", headers=bearer(secret.value))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_reply_of_one_tenant_is_unknown_to_another(start: Start, keys: Path) -> None:
    service = await start(api_keys_file=keys)

    async def asked(key: str, **changes: object) -> httpx.Response:
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}], "audio": {}, **changes}
        return await service.http.post("/v1/chat/completions", json=body, headers=bearer(key))

    audio = (await asked("key-of-acme")).json()["choices"][0]["message"]["audio"]["id"]
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "audio": {"id": audio}},
        {"role": "user", "content": "and?"},
    ]
    assert (await asked("second-key-of-acme", messages=history)).status_code == 200
    foreign = await asked("key-of-zoo", messages=history)
    history[1] = {"role": "assistant", "audio": {"id": audio[::-1]}}
    unknown = await asked("key-of-acme", messages=history)
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace(audio, "") == unknown.text.replace(audio[::-1], "")
    turns = service.speaker.turns
    assert turns[0].affinity == turns[1].affinity


async def test_tenants_share_no_prefix(start: Start, keys: Path) -> None:
    service = await start(api_keys_file=keys)
    body = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}]}
    for key in ("key-of-acme", "key-of-zoo"):
        answer = await service.http.post("/v1/chat/completions", json=body, headers=bearer(key))
        assert answer.status_code == 200
    one, two = service.speaker.turns
    assert one.affinity != two.affinity


def test_errors_of_keys_say_no_more_than_they_should(keys: Path) -> None:
    callers = Callers(IngressConfig(api_keys_file=keys))
    for wrong in (None, "guess", "ek_guess"):
        with pytest.raises(ChromaError) as told:
            callers.of_key(wrong)
        assert "guess" not in told.value.message
        assert "acme" not in told.value.message
