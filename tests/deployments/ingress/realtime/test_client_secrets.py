"""POST /v1/realtime/client_secrets: what a browser is given instead of a key."""

import pytest
from openai import AsyncOpenAI, BadRequestError, PermissionDeniedError

from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client

SECRET = "the same on every replica"


async def guarded(start: Start) -> tuple[Service, AsyncOpenAI]:
    service = await start(auth=True, token_secret=SECRET)
    return service, service.openai.with_options(api_key=await service.key())


async def test_a_secret_opens_a_session_with_its_settings_on_any_replica(start: Start) -> None:
    _, client = await guarded(start)
    made = await client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={"type": "realtime", "instructions": "Be brief.", "audio": {"input": {"turn_detection": None}}},
    )
    assert made.value.startswith("ek_")
    assert made.session.type == "realtime"
    assert made.session.instructions == "Be brief."
    other, _ = await guarded(start)
    live = await Client.connect(other, made.value)
    session = live.told[0]["session"]
    assert session["instructions"] == "Be brief."
    assert session["audio"]["input"]["turn_detection"] is None
    assert (await live.answered())["status"] == "completed"
    await live.close()


async def test_a_secret_opens_nothing_else(start: Start) -> None:
    _, client = await guarded(start)
    made = await client.realtime.client_secrets.create()
    with pytest.raises(PermissionDeniedError):
        await client.with_options(api_key=made.value).models.list()
    with pytest.raises(PermissionDeniedError):
        await client.with_options(api_key=made.value).realtime.client_secrets.create()


async def test_settings_that_no_session_could_have_are_refused_at_once(start: Start) -> None:
    _, client = await guarded(start)
    for session in ({"type": "transcription"}, {"type": "realtime", "audio": 7}):
        with pytest.raises(BadRequestError):
            await client.realtime.client_secrets.create(session=session)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError):
        await client.realtime.client_secrets.create(expires_after={"seconds": 5})
