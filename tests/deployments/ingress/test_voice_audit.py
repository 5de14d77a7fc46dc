"""What is done with consents and voices is written down, on both databases, and stays written down."""

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from deployments.ingress.callers import Caller
from deployments.ingress.store.address import database_url
from deployments.ingress.store.schema import migrate
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.test_voices import CLIP, WORDS, consent, voice


@pytest.fixture
def database(empty: str) -> str:
    """Both kinds, in place of the one of conftest."""
    migrate(database_url(empty))
    return empty


async def trail(service: Service, key: str = "unused") -> list[dict[str, Any]]:
    """Oldest first."""
    headers = {"authorization": f"Bearer {key}"}
    answer = await service.http.get("/v1/audio/voice_audit", params={"limit": 100}, headers=headers)
    assert answer.status_code == 200
    return sorted(answer.json()["data"], key=lambda row: row["id"])


async def test_the_life_of_a_voice_is_written_down(start: Start, database: str) -> None:
    service = await start(auth=True, key_secret="of the operator")
    key, other = await service.key("acme"), await service.key("zoo")
    client = service.openai.with_options(api_key=key)
    agreed = await consent(client)
    made = await voice(client, agreed.id)
    for _ in range(2):
        await client.chat.completions.create(
            model="chroma",
            messages=[{"role": "user", "content": "hello"}],
            modalities=["text", "audio"],
            audio={"voice": made.id, "format": "wav"},
        )
    await client.audio.voice_consents.update(agreed.id, name="Ada")
    lost = await voice(client, agreed.id)
    await client.audio.voices.delete(made.id)
    await client.audio.voice_consents.delete(agreed.id)
    rows = await trail(service, key)
    told = [(row["action"], row["voice"]) for row in rows]
    assert told[:5] == [
        ("consent.recorded", None),
        ("voice.made", made.id),
        ("voice.first_used", made.id),
        ("consent.renamed", None),
        ("voice.made", lost.id),
    ]
    assert told[5] == ("voice.deleted", made.id)
    assert set(told[6:]) == {("voice.deleted", lost.id), ("consent.deleted", None)}  # of one moment
    assert {row["consent"] for row in rows} == {agreed.id}
    assert {row["tenant"] for row in rows} == {"acme"}
    keys = (await service.app.services.tenants.keys("acme"))[0].id
    assert {row["key_id"] for row in rows} == {keys}
    assert all(agreed.created_at <= row["at"] <= agreed.created_at + 600 for row in rows)
    assert await trail(service, other) == []
    command = [str(Path(sys.executable).parent / "chroma"), "voices", "audit", "--database", database]
    for options, expected in (
        ([], rows),
        (["--voice", made.id], [row for row in rows if row["voice"] == made.id]),
        (["--tenant", "zoo"], []),
    ):
        done = await asyncio.to_thread(
            subprocess.run, [*command, *options], capture_output=True, text=True, timeout=120, check=True
        )
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected


async def test_what_was_recorded_is_known_by_its_hash_when_it_is_gone(service: Service) -> None:
    store = service.app.services.store
    caller = Caller("public", "open")
    agreed = await store.add_consent(caller, "me", "en", b"a recording")
    await store.add_voice(caller, "v", agreed.id, "words", 3.0, b"a clip", b"codes", "codec")
    await store.delete_consent(caller, agreed.id)
    hashes = {row["action"]: row["sha256"] for row in await trail(service)}
    assert hashes["consent.recorded"] == hashlib.sha256(b"a recording").hexdigest()
    assert hashes["voice.made"] == hashlib.sha256(b"a clip").hexdigest()
    assert hashes["voice.deleted"] is None


async def test_many_first_uses_at_once_are_one(service: Service) -> None:
    made = await voice(service.openai, (await consent(service.openai)).id)
    answers = await asyncio.gather(*(service.ask(audio={"voice": made.id}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert [row["action"] for row in await trail(service)].count("voice.first_used") == 1


async def test_a_session_that_names_a_voice_uses_it(start: Start) -> None:
    service = await start()
    made = await voice(service.openai, (await consent(service.openai)).id)
    client = await Client.connect(service)
    await client.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": made.id}}})
    await client.one("session.updated")
    assert [row["action"] for row in await trail(service)][-1] == "voice.first_used"
    await client.close()


async def test_the_database_itself_keeps_the_trail_until_all_of_the_tenant_is_gone(
    service: Service, database: str
) -> None:
    await voice(service.openai, (await consent(service.openai)).id)
    engine = create_engine(database_url(database))
    for statement in (
        "UPDATE voice_audit SET key_id = 'somebody else'",
        "DELETE FROM voice_audit WHERE action = 'voice.made'",
    ):
        with pytest.raises(DBAPIError, match="can only be added to"), engine.begin() as connection:
            connection.execute(text(statement))
    assert len(await trail(service)) == 2
    engine.dispose()
    await service.app.services.tenants.erase("public")
    assert await trail(service) == []


def test_what_was_there_before_is_written_down_by_the_migration(empty: str) -> None:
    from alembic import command

    from deployments.ingress.store.schema import _config, _connected, _sole_migrator

    url = database_url(empty)
    with _sole_migrator(url), _connected(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        cons, made = f"cons_{'1' * 32}", f"voice_{'2' * 32}"
        connection.execute(
            text("INSERT INTO voice_consents VALUES (:id, 'acme', 7, 'n', 'en', :r)"), {"id": cons, "r": b""}
        )
        connection.execute(
            text("INSERT INTO voices VALUES (:id, 'acme', 8, 'n', :consent, 'words', 3.0, :r, :r, 'codec')"),
            {"id": made, "consent": cons, "r": b""},
        )
    migrate(url)
    with _connected(url) as connection:
        rows = connection.execute(text("SELECT action, at, key_id, consent_id, voice_id FROM voice_audit ORDER BY id"))
        assert [tuple(row) for row in rows] == [
            ("consent.recorded", 7, "", cons, None),
            ("voice.made", 8, "", cons, made),
        ]


async def test_a_voice_that_comes_with_a_request_is_written_down_once_while_it_is_used(start: Start) -> None:
    service = await start(auth=True, key_secret="of the operator")
    keys = [await service.key("acme"), await service.key("zoo")]
    clip = {"reference": {"data": base64.b64encode(CLIP).decode(), "format": "wav"}, "transcript": WORDS}
    body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], "audio": {"voice": clip}}
    for key in (*keys, *keys):
        headers = {"authorization": f"Bearer {key}"}
        assert (await service.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    rows = [await trail(service, key) for key in keys]
    assert [[(row["action"], row["consent"], row["voice"]) for row in one] for one in rows] == [
        [("reference.used", None, None)]
    ] * 2
    assert rows[0][0]["sha256"] == rows[1][0]["sha256"]


async def test_a_server_may_want_a_consent_for_every_voice(start: Start) -> None:
    service = await start(reference_voices=False)
    clip = {"reference": {"data": base64.b64encode(CLIP).decode(), "format": "wav"}, "transcript": WORDS}
    refused = await service.ask(audio={"voice": clip})
    assert refused.status_code == 403
    assert "POST /v1/audio/voices" in refused.json()["error"]["message"]
    made = await voice(service.openai, (await consent(service.openai)).id)
    for known in ("default", made.id):
        assert (await service.ask(audio={"voice": known})).status_code == 200
