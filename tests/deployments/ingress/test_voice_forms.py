"""What is sent to make voices, and what is told about it."""

from typing import Any

import openai
import pytest

from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import file_of, tone

CLIP = file_of(tone(4 * 24_000, 24_000), 24_000)
SHORT = file_of(tone(24_000, 24_000), 24_000)
FIELDS = {"name": "me", "consent": "CONSENT", "transcript": "Words."}

WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str | None, str]] = {
    "no name": ({"name": None}, {}, "name", "'name' is missing or empty"),
    "blank name": ({"name": "  "}, {}, "name", "'name' is missing or empty"),
    "long name": ({"name": "x" * 257}, {}, "name", "longer than 256"),
    "bell": ({"name": "a\abell"}, {}, "name", "control characters"),
    "NUL": ({"transcript": "a\0"}, {}, "transcript", "control characters"),
    "no consent": ({"consent": None}, {}, "consent", "needs the id of a recorded consent"),
    "no transcript": ({"transcript": None}, {}, "transcript", "words spoken in the recording"),
    "long transcript": ({"transcript": "x" * 2001}, {}, "transcript", "longer than 2000"),
    "far too long": ({"transcript": "x" * 20_000}, {}, None, "far too long"),
    "unknown field": ({"speed": "2"}, {}, "speed", "Unknown form field 'speed'"),
    "by prompt": ({"type": "prompt"}, {}, "type", "made of a recording"),
    "no clip": ({}, {"audio_sample": None, "type": (None, b"audio_sample")}, "audio_sample", "no file 'audio_sample'"),
    "two clips": ({}, {"more": ("b.wav", CLIP)}, "more", "Unknown form field 'more'"),
    "short clip": ({}, {"audio_sample": ("a.wav", SHORT)}, "audio_sample", "lasts 1.0 s; send 3 to 30 s"),
    "no audio": ({}, {"audio_sample": ("a.wav", b"hello")}, "audio_sample", "no recording that is read here"),
}


async def agreed(service: Service) -> str:
    made = await service.openai.audio.voice_consents.create(name="me", language="en", recording=("a.wav", CLIP))
    return made.id


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_form_is_told_what_to_change(direct: Service, name: str) -> None:
    fields, files, param, words = WRONG[name]
    data = {k: v for k, v in {**FIELDS, "consent": await agreed(direct), **fields}.items() if v is not None}
    sent = {k: v for k, v in {"audio_sample": ("a.wav", CLIP), **files}.items() if v is not None}
    answer = await direct.http.post("/v1/audio/voices", data=data, files=sent)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert words in error["message"]
    assert error["param"] == param
    assert error["message"].endswith(".")
    assert not direct.speaker.clips


@pytest.mark.parametrize("language", ["", "english please", "en_US", "e", "en-" + "x" * 9])
async def test_a_language_is_a_tag(direct: Service, language: str) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        await direct.openai.audio.voice_consents.create(name="me", language=language, recording=("a.wav", CLIP))
    assert told.value.param == "language"


async def test_the_sdk_is_told_that_voices_are_not_made_of_prompts(direct: Service) -> None:
    with pytest.raises(openai.BadRequestError, match="made of a recording"):
        await direct.openai.audio.voices.create(name="me", type="prompt", prompt="A deep voice.")
    with pytest.raises(openai.BadRequestError, match="'transcript' is missing"):
        await direct.openai.audio.voices.create(name="me", consent="cons_1", audio_sample=("a.wav", CLIP))


MULTIPART = "multipart/form-data; boundary=b"
PART = b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\nme\r\n'
BROKEN = {
    "no form": ("application/json", b"{}", "Send a form as multipart/form-data"),
    "no boundary": ("multipart/form-data", PART, "Send a form as multipart/form-data"),
    "cut": (MULTIPART, PART, "ends in the middle"),
    "nothing": (MULTIPART, b"", "ends in the middle"),
    "no parts": (MULTIPART, b"hello", "cannot be read"),
    "nameless": (MULTIPART, b"--b\r\nx: y\r\n\r\nz\r\n--b--\r\n", "cannot be read"),
    "not text": (MULTIPART, PART.replace(b"me", b"\xff") + b"--b--\r\n", "cannot be read"),
    "twice": (MULTIPART, PART + PART + b"--b--\r\n", "'name' is sent twice"),
    "many": (MULTIPART, b"".join(PART.replace(b'"name"', b'"n%d"' % n) for n in range(40)) + b"--b--", "more than 32"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_form_is_told_so(direct: Service, name: str) -> None:
    kind, body, words = BROKEN[name]
    for path in ("/v1/audio/voices", "/v1/audio/voice_consents"):
        answer = await direct.http.post(path, content=body, headers={"content-type": kind})
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]


async def test_a_recording_beyond_the_limit_is_refused_before_it_is_read(start: Start) -> None:
    service = await start(max_upload_bytes=100_000)
    with pytest.raises(openai.APIStatusError) as told:
        await agreed(service)
    assert told.value.status_code == 413
    assert "larger than 100000 bytes" in told.value.message


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=%C2%B2", "limit=", "after=x", "after=voice_1%27--"]
)
async def test_a_wrong_page_is_told_so(direct: Service, query: str) -> None:
    for path in ("voices", "voice_consents"):
        answer = await direct.http.get(f"/v1/audio/{path}?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"name": ""}', b'{"name": 1}', b'{"name": "x", "language": "de"}', b"[", b""]
)
async def test_nothing_but_the_name_of_a_consent_changes(direct: Service, body: bytes) -> None:
    answer = await direct.http.post(f"/v1/audio/voice_consents/{await agreed(direct)}", content=body)
    assert answer.status_code == 400


async def test_speech_says_what_to_use_instead(direct: Service) -> None:
    with pytest.raises(openai.NotFoundError) as told:
        await direct.openai.audio.speech.create(model="chroma", voice="alloy", input="Read this aloud.")
    assert "/v1/chat/completions" in told.value.message
    assert "/v1/realtime" in told.value.message
    assert told.value.code == "unknown_url"
