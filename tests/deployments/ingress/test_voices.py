"""Voices and consents with OpenAI's own client, on both databases."""

import asyncio
import io
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from openai import AsyncOpenAI
from openai.types.audio.voice import Voice
from openai.types.audio.voice_consent import VoiceConsent
from openai.types.audio.voice_consent_deleted import VoiceConsentDeleted
from openai.types.audio.voice_deleted import VoiceDeleted

from deployments.ingress.callers import EVERYBODY, Caller
from deployments.ingress.store.address import database_url
from deployments.ingress.store.schema import migrate
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import Scripted, file_of, tone

CLIP = file_of(tone(4 * 24_000, 24_000), 24_000)
WORDS = "The words I say in my clip."


@pytest.fixture
def database(empty: str) -> str:
    """Both kinds, in place of the one of conftest."""
    migrate(database_url(empty))
    return empty


async def consent(client: AsyncOpenAI, name: str = "me") -> VoiceConsent:
    return await client.audio.voice_consents.create(
        name=name, language="en-US", recording=("yes.wav", CLIP, "audio/wav")
    )


async def voice(client: AsyncOpenAI, consent_id: str, clip: bytes = CLIP, **more: Any) -> Voice:
    return await client.audio.voices.create(
        name="me",
        consent=consent_id,
        audio_sample=("me.wav", clip, "audio/wav"),
        extra_body={"transcript": WORDS, **more},
    )


async def voices_of(service: Service, **params: Any) -> list[dict[str, Any]]:
    answer = await service.http.get("/v1/audio/voices", params=params)
    assert answer.status_code == 200
    return answer.json()["data"]


async def test_a_voice_lives_its_life_through_the_sdk(service: Service) -> None:
    client = service.openai
    agreed = await consent(client)
    VoiceConsent.model_validate(agreed.model_dump(), strict=True)
    assert (agreed.object, agreed.language, agreed.name) == ("audio.voice_consent", "en-US", "me")
    made = await voice(client, agreed.id)
    Voice.model_validate(made.model_dump(), strict=True)
    assert (made.object, made.type, made.name) == ("audio.voice", "audio_sample", "me")
    assert made.id.startswith("voice_")
    assert abs(made.created_at - agreed.created_at) <= 60
    assert made.model_extra == {"consent": agreed.id, "transcript": WORDS, "audio_s": 4.0}

    one = await service.http.get(f"/v1/audio/voices/{made.id}")
    assert one.json() == made.model_dump(exclude_none=True)
    assert await voices_of(service) == [one.json()]

    for wanted in (made.id, {"id": made.id}):
        answer = await service.ask(audio={"voice": wanted, "format": "wav"})
        assert answer.status_code == 200
        assert service.speaker.turns[-1].voice.transcript == WORDS
        assert service.speaker.turns[-1].voice.frames == 50
    assert len(service.speaker.clips) == 2  # the clip, and the built-in one, each once
    heard = np.frombuffer(service.speaker.clips[0], "<f4")
    assert np.array_equal(heard, soundfile.read(io.BytesIO(CLIP), dtype="float32")[0])  # 24 kHz comes through as it is

    gone = await client.audio.voices.delete(made.id)
    VoiceDeleted.model_validate(gone.model_dump(), strict=True)
    assert (gone.id, gone.deleted) == (made.id, True)
    answer = await service.ask(audio={"voice": made.id})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "voice_not_found")
    with pytest.raises(openai.NotFoundError):
        await client.audio.voices.delete(made.id)
    assert (await client.audio.voice_consents.retrieve(agreed.id)).id == agreed.id  # it stays


async def test_a_realtime_session_may_name_a_voice_of_the_callers_alone(start: Start) -> None:
    service = await start(auth=True)
    client, foreign = [service.openai.with_options(api_key=await service.key(name)) for name in ("acme", "zoo")]
    made = await voice(client, (await consent(client)).id)
    session: Any = {"type": "realtime", "audio": {"output": {"voice": made.id}}}
    secret = await client.realtime.client_secrets.create(session=session)
    assert secret.session.audio.output.voice == made.id  # type: ignore[union-attr]
    with pytest.raises(openai.NotFoundError) as told:
        await foreign.realtime.client_secrets.create(session=session)
    assert (told.value.code, told.value.param) == ("voice_not_found", "session.audio.output.voice")
    async with client.realtime.connect(model="chroma") as live:
        await live.session.update(session=session)
        async for event in live:
            assert event.type != "error"
            if event.type == "session.updated":
                break
        await live.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        await live.response.create()
        async for event in live:
            if event.type == "response.done":
                assert event.response.status == "completed"
                break
    assert service.speaker.turns[-1].voice.transcript == WORDS


async def test_consents_are_listed_renamed_and_take_their_voices_with_them(service: Service) -> None:
    consents = service.openai.audio.voice_consents
    made = [await consent(service.openai, f"number {n}") for n in range(5)]
    assert [c.id async for c in consents.list(limit=2)] == [c.id for c in reversed(made)]
    page = await consents.list(limit=2)
    assert page.has_more
    assert [c.id for c in (await consents.list(after=page.data[-1].id, limit=3)).data] == [c.id for c in made[2::-1]]
    renamed = await consents.update(made[0].id, name="somebody")
    assert renamed == (await consents.retrieve(made[0].id))
    assert (renamed.name, renamed.created_at) == ("somebody", made[0].created_at)

    kept, lost = await voice(service.openai, made[1].id), await voice(service.openai, made[0].id)
    gone = await consents.delete(made[0].id)
    VoiceConsentDeleted.model_validate(gone.model_dump(), strict=True)
    assert [v["id"] for v in await voices_of(service)] == [kept.id]
    assert (await service.ask(audio={"voice": lost.id})).status_code == 404


async def test_a_list_goes_on_from_a_voice_that_is_gone(service: Service) -> None:
    agreed = await consent(service.openai)
    made = [await voice(service.openai, agreed.id) for _ in range(3)]
    await service.openai.audio.voices.delete(made[1].id)
    assert [v["id"] for v in await voices_of(service, after=made[1].id)] == [made[0].id]


async def test_a_voice_is_there_after_a_restart_and_not_encoded_again(start: Start) -> None:
    one = await start()
    made = await voice(one.openai, (await consent(one.openai)).id)
    await one.server.drain()
    two = await start()
    assert (await two.ask(audio={"voice": made.id})).status_code == 200
    assert two.speaker.turns[-1].voice.transcript == WORDS
    assert len(two.speaker.clips) == 1  # the built-in voice, which tells the codec
    assert len(two.speaker.clips[0]) != 4 * 96_000


async def test_replicas_see_each_others_voices_at_once(start: Start) -> None:
    one, two = await start(), await start()
    agreed = await consent(one.openai)
    made = await voice(two.openai, agreed.id)
    for service in (one, two, one):
        assert (await service.ask(audio={"voice": made.id})).status_code == 200
    await one.openai.audio.voices.delete(made.id)
    for service in (two, one):
        assert (await service.ask(audio={"voice": made.id})).status_code == 404
        assert await voices_of(service) == []


async def test_many_are_made_at_once_on_two_replicas(start: Start) -> None:
    services = [await start(), await start()]
    agreed = await consent(services[0].openai)
    clips = [file_of(tone(4 * 24_000, 24_000, 200.0 + 20 * n), 24_000) for n in range(4)]
    made = await asyncio.gather(*(voice(services[n % 2].openai, agreed.id, clips[n % 4]) for n in range(16)))
    assert len({v.id for v in made}) == 16
    for service in services:
        assert {v["id"] for v in await voices_of(service, limit=100)} == {v.id for v in made}
        assert len(service.speaker.clips) <= 1 + 4  # the same clip is encoded once, however many ask


async def test_a_consent_that_goes_while_its_voice_is_encoded_leaves_no_voice(service: Service) -> None:
    agreed = await consent(service.openai)
    service.speaker.encode_s = 0.3
    making = asyncio.create_task(voice(service.openai, agreed.id))
    while not service.speaker.clips:
        await asyncio.sleep(0.01)
    await service.openai.audio.voice_consents.delete(agreed.id)
    with pytest.raises(openai.NotFoundError) as told:
        await making
    assert told.value.code == "voice_consent_not_found"
    assert await voices_of(service) == []


class OtherCodec(Scripted):
    """Makes other codes of the same clip, as other weights would."""

    async def encode_voice(self, pcm: bytes) -> bytes:
        codes = np.frombuffer(await super().encode_voice(pcm), "<i2")
        return codes[::-1].astype("<i2").tobytes()


async def test_codes_of_another_codec_are_made_anew_once(start: Start) -> None:
    one = await start()
    made = await voice(one.openai, (await consent(one.openai)).id)
    assert (await one.ask(audio={"voice": made.id})).status_code == 200
    await one.server.drain()
    two = await start(speaker=OtherCodec())
    assert all([(await two.ask(audio={"voice": made.id})).status_code == 200 for _ in range(3)])
    codes = [turn.voice.codes for turn in two.speaker.turns]
    assert codes[0] == codes[2] != one.speaker.turns[0].voice.codes
    assert np.array_equal(np.sort(np.frombuffer(codes[0], "<i2")), np.arange(8 * 50))
    assert len(two.speaker.clips) == 2
    await two.server.drain()
    three = await start(speaker=OtherCodec())
    assert (await three.ask(audio={"voice": made.id})).status_code == 200
    assert three.speaker.turns[0].voice.codes == codes[0]
    assert len(three.speaker.clips) == 1


def as_tenant(service: Service, key: str) -> tuple[httpx.AsyncClient, AsyncOpenAI]:
    http = httpx.AsyncClient(
        base_url=service.http.base_url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=20
    )
    return http, service.openai.with_options(api_key=key)


UNKNOWN = {"voice": "voice_" + "0" * 32, "consent": "cons_" + "0" * 32}
BY_ID = [
    ("voice", "GET", "/v1/audio/voices/{}", {}),
    ("voice", "DELETE", "/v1/audio/voices/{}", {}),
    ("consent", "GET", "/v1/audio/voice_consents/{}", {}),
    ("consent", "POST", "/v1/audio/voice_consents/{}", {"json": {"name": "mine now"}}),
    ("consent", "DELETE", "/v1/audio/voice_consents/{}", {}),
]


async def test_what_is_another_tenants_is_answered_as_what_never_was(start: Start) -> None:
    service = await start(auth=True)
    http, client = as_tenant(service, await service.key("acme"))
    foreign_http, foreign = as_tenant(service, await service.key("zoo"))
    async with http, foreign_http:
        agreed = await consent(client)
        made = await voice(client, agreed.id)
        ids = {"voice": made.id, "consent": agreed.id}

        async def told(method: str, path: str, row_id: str, more: dict[str, Any]) -> tuple[int, str]:
            answer = await foreign_http.request(method, path.format(row_id), **more)
            return answer.status_code, answer.text.replace(row_id, "ID")

        for kind, method, path, more in BY_ID:
            answers = {await told(method, path, row_id, more) for row_id in (ids[kind], UNKNOWN[kind], "nonsense")}
            assert len(answers) == 1, (method, path)
            assert answers.pop()[0] == 404

        for path in ("/v1/audio/voices", "/v1/audio/voice_consents"):
            assert (await foreign_http.get(path)).json()["data"] == []
            assert len((await http.get(path)).json()["data"]) == 1
        refused = []
        for consent_id in (agreed.id, UNKNOWN["consent"]):
            with pytest.raises(openai.NotFoundError) as error:
                await voice(foreign, consent_id)
            refused.append((error.value.code, error.value.param, error.value.message.replace(consent_id, "ID")))
        assert refused[0] == refused[1]
        assert refused[0][:2] == ("voice_consent_not_found", "consent")
        spoken = set()
        for voice_id in (made.id, UNKNOWN["voice"]):
            body = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}], "audio": {"voice": voice_id}}
            answer = await foreign_http.post("/v1/chat/completions", json=body)
            spoken.add((answer.status_code, answer.text.replace(voice_id, "ID")))
        assert len(spoken) == 1
        assert spoken.pop()[0] == 404

        assert (await http.get(f"/v1/audio/voices/{made.id}")).status_code == 200  # nothing of it was touched
        assert (await client.audio.voice_consents.retrieve(agreed.id)).name == "me"


@pytest.mark.parametrize("path", ["voices", "voice_consents", "voices/x", "voice_consents/x", "speech"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_no_voice_route_answers_a_stranger(start: Start, method: str, path: str) -> None:
    service = await start(auth=True)
    answer = await service.http.request(method, f"/v1/audio/{path}", headers={"authorization": "Bearer wrong"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_another_name_costs_no_look_up(service: Service) -> None:
    """The built-in voice, and names that are no ids, are answered without the database."""
    await service.app.services.database.close()
    caller = Caller(EVERYBODY, "open")
    assert (await service.app.services.voices.resolve("default", caller)).frames
    assert (await service.ask(audio={"voice": "alloy"})).status_code == 404
    answer = await service.ask(audio={"voice": UNKNOWN["voice"]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await service.http.get("/v1/audio/voices")).status_code == 503
    assert (await service.ask()).status_code == 200
