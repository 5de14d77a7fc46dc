"""What is written down of responses: one row each, whatever became of them, and no second of audio twice."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from chroma_models.errors import StageUnavailable
from chroma_models.types import Admitted
from deployments.ingress.store.tenant_tables import UsageRow
from deployments.ingress.store.usage_store import DAY_S, MINUTE_S, UsageStore, window_begin
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.scripted import FINGERPRINT, chunk, items, reply

HALF = items(Admitted(FINGERPRINT), chunk(0, 10, 25), 30.0)  # and no more for as long as anybody waits


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def rows(service: Service, ended: int) -> list[UsageRow]:
    """All of them, once so many have ended."""
    while True:
        async with service.app.services.database.session() as session:
            found = list((await session.scalars(select(UsageRow).order_by(UsageRow.started_at))).all())
        if sum(row.ended_at is not None for row in found) >= ended:
            return found
        await asyncio.sleep(0.02)


async def asked(service: Service, key: str, **changes: Any) -> httpx.Response:
    body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], **changes}
    return await service.http.post("/v1/chat/completions", json=body, headers=bearer(key))


SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}


async def test_each_response_is_one_row_with_what_was_delivered(start: Start) -> None:
    service = await start(auth=True)
    key = await service.key()
    service.speaker.script = reply(25)
    whole = (await asked(service, key, **SPOKEN)).json()
    live = await Client.connect(service, key)
    done = await live.answered()
    await live.close()
    first, second = await rows(service, 2)
    assert (first.id, second.id) == (whole["id"], done["id"])
    assert (first.protocol, second.protocol) == ("chat", "realtime")
    assert [(row.tenant, row.voice, row.model, row.outcome, row.spoken_s) for row in (first, second)] == [
        ("acme", "default", "chroma", "completed", 2.0)
    ] * 2
    assert first.first_audio_s == whole["chroma"]["first_audio_s"]
    assert first.text_tokens == whole["usage"]["completion_tokens_details"]["text_tokens"]
    assert first.key_id in key
    told = (await service.http.get("/v1/usage", headers=bearer(key))).json()["data"]
    assert [(day["key_id"], day["responses"], day["completed"], day["spoken_s"]) for day in told] == [
        (first.key_id, 2, 2, 4.0)
    ]


async def test_a_cancelled_response_is_billed_for_what_was_heard(start: Start) -> None:
    service = await start(auth=True)
    key = await service.key()
    service.speaker.script = HALF
    live = await Client.connect(service, key)
    await live.say("hello")
    await live.send("response.create")
    await live.one("response.output_audio.delta", 1)
    await live.send("response.cancel")
    done = (await live.one("response.done"))["response"]
    await live.close()
    (row,) = await rows(service, 1)
    assert (row.id, row.outcome) == (done["id"], "cancelled")
    assert 0 < row.spoken_s <= 10 * 0.08


async def test_who_hangs_up_in_a_whole_reply_pays_nothing(start: Start) -> None:
    service = await start(auth=True)
    key = await service.key()
    service.speaker.script = HALF
    with contextlib.suppress(httpx.ReadTimeout):
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}], **SPOKEN}
        await service.http.post("/v1/chat/completions", json=body, headers=bearer(key), timeout=0.5)
    (row,) = await rows(service, 1)
    assert (row.outcome, row.spoken_s) == ("cancelled", 0.0)


async def test_a_failed_response_has_a_row_with_its_code(start: Start) -> None:
    service = await start(auth=True)
    key = await service.key()
    service.speaker.script = items(StageUnavailable("It is gone.", 1.0))
    assert (await asked(service, key)).status_code == 503
    (row,) = await rows(service, 1)
    assert (row.outcome, row.spoken_s) == ("stage_unavailable", 0.0)


async def test_a_row_is_there_from_the_first_moment_and_grows(start: Start) -> None:
    """And what a dead replica left open is closed by another."""
    service = await start(auth=True, usage_flush_s=0.05, usage_lost_s=30.0)
    key = await service.key()
    service.speaker.script = HALF
    live = await Client.connect(service, key)
    await live.say("hello")
    await live.send("response.create")
    await live.one("response.output_audio.delta", 1)
    while not (known := await rows(service, 0)) or not known[0].spoken_s:
        await asyncio.sleep(0.02)
    assert (known[0].outcome, known[0].ended_at) == ("running", None)
    ledger = service.app.services.ledger
    assert ledger._task is not None
    ledger._task.cancel()  # as a killed replica writes no more
    store = UsageStore(service.app.services.database)
    assert await store.close_lost(known[0].touched_at + 29.0, 30.0) == 0
    assert await store.close_lost(known[0].touched_at + 31.0, 30.0) == 1
    (lost,) = await rows(service, 1)
    assert (lost.outcome, lost.ended_at, lost.spoken_s) == ("lost", lost.touched_at, known[0].spoken_s)
    await live.close()


async def test_what_the_database_does_not_take_is_written_once_it_does(start: Start) -> None:
    service = await start(auth=True, usage_flush_s=0.05)
    key = await service.key()
    store = service.app.services.ledger._store
    write, failures = store.write, 0

    async def failing(*told: Any) -> None:
        nonlocal failures
        failures += 1
        database, store._database = store._database, type(store._database)("sqlite:////nowhere", 1.0)
        try:
            await write(*told)
        finally:
            store._database = database

    store.write = failing  # type: ignore[method-assign]
    service.speaker.script = reply(25)
    assert (await asked(service, key)).status_code == 200
    while failures < 3:
        await asyncio.sleep(0.02)
    store.write = write  # type: ignore[method-assign]
    (row,) = await rows(service, 1)
    assert (row.outcome, row.spoken_s) == ("completed", 2.0)
    minute, day = await store.spent("acme", row.touched_at)
    assert (minute, day) == (2.0, 2.0)  # counted once


@pytest.mark.parametrize(("quota", "window_s"), [("audio_s_per_minute", MINUTE_S), ("audio_s_per_day", DAY_S)])
async def test_a_tenant_hears_no_more_than_it_may(start: Start, quota: str, window_s: int) -> None:
    service = await start(auth=True)
    ledger = service.app.services.ledger
    ledger._clock = clock(60 * 1000.0 + 10.0)
    key = await service.key(**{quota: 3.0})
    service.speaker.script = reply(25)
    first = await asked(service, key)
    name = quota.removeprefix("audio_s_per_")
    assert first.headers[f"x-ratelimit-limit-audio-seconds-{name}"] == "3"
    live = await Client.connect(service, key)
    assert (await live.answered())["status"] == "completed"
    await rows(service, 2)
    ledger._spent.clear()
    refused = await asked(service, key)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (429, "insufficient_quota", quota)
    left_s = window_begin(60_010.0, window_s) + window_s - 60_010
    assert refused.headers["retry-after"] == f"{left_s}"
    failed = await live.answered()  # the session lives on
    assert failed["status"] == "failed"
    assert failed["status_details"]["error"]["code"] == "insufficient_quota"
    ledger._clock = clock(60_010.0 + window_s)
    ledger._spent.clear()
    assert (await live.answered())["status"] == "completed"
    await live.close()


def clock(now_s: float) -> Callable[[], float]:
    return lambda: now_s


async def test_days_and_keys_are_told_apart_and_no_other_tenants(start: Start) -> None:
    service = await start(auth=True)
    one, two, other = await service.key(), await service.key(), await service.key("zoo")
    service.speaker.script = reply(25)
    ledger = service.app.services.ledger
    for key, day in ((one, 1), (one, 1), (two, 1), (one, 2), (other, 2)):
        ledger._clock = clock(day * DAY_S + 7.0)
        assert (await asked(service, key)).status_code == 200
    await rows(service, 5)

    async def told(query: str) -> Any:
        return await service.http.get(f"/v1/usage?{query}", headers=bearer(one))

    data = (await told("start_day=1970-01-01&end_day=1970-01-04")).json()["data"]
    assert sorted((row["day"], row["key_id"] in one, row["responses"], row["spoken_s"]) for row in data) == [
        ("1970-01-02", False, 1, 2.0),
        ("1970-01-02", True, 2, 4.0),
        ("1970-01-03", True, 1, 2.0),
    ]
    assert len((await told("start_day=1970-01-03&end_day=1970-01-04")).json()["data"]) == 1
    for wrong in ("start_day=x", "end_day=2026-13-01", "start_day=2026-01-02&end_day=2026-01-01", "days=3"):
        assert (await told(wrong)).status_code == 400, wrong
