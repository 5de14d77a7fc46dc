"""A voice that is deleted is spoken in no more, on no replica, and is in no cache within a minute."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.ingress.clip_codes import ClipCodes
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from deployments.settings import Settings
from tests.deployments.ingress.conftest import Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.rpc.client import Talk
from tests.deployments.ingress.scripted import until
from tests.deployments.ingress.test_voices import consent, voice


async def test_replicas_that_spoke_in_a_voice_refuse_it_once_another_has_deleted_it(start: Start) -> None:
    """Over one database: by id, and in live sessions that named it while it was there."""
    import grpc

    here, there = await start(), await start()
    made = await voice(here.openai, (await consent(here.openai)).id)
    for service in (here, there):
        assert (await service.ask(audio={"voice": made.id})).status_code == 200
    client = await Client.connect(there)
    await client.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": made.id}}})
    await client.one("session.updated")
    assert (await client.answered())["status"] == "completed"
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{there.server.grpc_port}")
    talk = await Talk.open(SpeechServiceStub(channel), voice_id=made.id)
    spoken_there = len(there.speaker.turns)

    await here.openai.audio.voices.delete(made.id)

    for service in (here, there):
        assert (await service.ask(audio={"voice": made.id})).json()["error"]["code"] == "voice_not_found"
    failed = await client.answered()
    assert (failed["status"], failed["status_details"]["error"]["code"]) == ("failed", "voice_not_found")
    await talk.say("hello")
    done = await talk.one("response_done")
    assert done.finish_reason == pb.FINISH_REASON_FAILED
    assert len(there.speaker.turns) == spoken_there  # no stage heard of it
    await client.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": "default"}}})
    await client.one("session.updated", 2)
    assert (await client.answered())["status"] == "completed"  # the session lives on
    await talk.end()
    await channel.close()
    await client.close()


async def test_nothing_of_a_voice_is_kept_by_an_ingress_that_is_asked_nothing(start: Start) -> None:
    service = await start(voice_cache_idle_s=1.0)
    await voice(service.openai, (await consent(service.openai)).id)
    clips = service.app.services.voices._clips
    assert len(clips) == 1
    await until(lambda: not len(clips))


def test_the_caches_by_their_settings_forget_within_a_minute_of_the_last_use() -> None:
    """Admission takes up to 4 times admit_timeout_s: a turn built just before the deletion is the last use."""
    models, limits = Settings().models, Settings().serving.limits
    for idle_s in (models.ingress.voice_cache_idle_s, models.backbone.voice_cache_idle_s):
        assert idle_s + 4 * limits.admit_timeout_s <= 60


def made_of(key: bytes, log: list[bytes]) -> Callable[[], object]:
    async def make() -> bytes:
        log.append(key)
        return key

    return make


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.floats(0, 30)), max_size=30))
async def test_clips_are_made_once_while_they_are_used(uses: list[tuple[bytes, float]]) -> None:
    now = 1000.0
    made: list[bytes] = []
    clips = ClipCodes(3, 45.0, lambda: now)
    used: dict[bytes, float] = {}
    for key, pause_s in uses:
        now += pause_s
        clips.expire()
        recent = sorted(used, key=lambda k: used[k])[-3:]
        alive = [k for k in recent if used[k] > now - 45.0]
        assert len(clips) == len(alive)
        before = len(made)
        assert await clips.get(key, made_of(key, made)) == key
        assert (len(made) > before) == (key not in alive)
        used.pop(key, None)
        used[key] = now
    clips.close()


async def test_a_clip_is_forgotten_without_anybody_asking() -> None:
    made: list[bytes] = []
    clips = ClipCodes(3, 0.05)
    await clips.get(b"a", made_of(b"a", made))
    assert len(clips) == 1
    await until(lambda: not len(clips))


async def test_a_clip_that_could_not_be_encoded_is_tried_again() -> None:
    clips = ClipCodes(3, 45.0)

    async def fail() -> bytes:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await clips.get(b"a", fail)
        await asyncio.sleep(0)
        assert len(clips) == 0
    clips.close()
