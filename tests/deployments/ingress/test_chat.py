"""Asking with OpenAI's own client: whole and streamed, spoken and written, alone and with history."""

import asyncio
import base64
import io
import json
from typing import Any

import av
import httpx
import numpy as np
import openai
import pytest
import soundfile

from chroma_models.types import Audio, Message, Text
from tests.conftest import ROOT
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import FINGERPRINT, WORDS, file_of, reply, spoken_pcm, tone, until

QUESTION = ROOT / "tests" / "data" / "question.wav"


def spoken(data: bytes, form: str = "wav") -> dict[str, Any]:
    audio = {"data": base64.b64encode(data).decode(), "format": form}
    return {"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}


SAID = "".join(WORDS[:5])  # of a reply of ten frames
WHOLE: dict[str, Any] = {"model": "chroma", "modalities": ["text", "audio"]}


async def test_a_spoken_question_is_heard_bit_for_bit_and_answered_whole(service: Service) -> None:
    answer = await service.openai.chat.completions.create(
        **WHOLE, audio={"voice": "default", "format": "wav"}, messages=[spoken(QUESTION.read_bytes())]
    )
    (turn,) = service.speaker.turns
    pcm, rate = soundfile.read(QUESTION, dtype="int16")
    assert rate == 16_000
    assert turn.messages == (Message("user", (Audio(pcm.tobytes()),)),)
    assert turn.pace == "fast"

    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.system_fingerprint is not None
    assert FINGERPRINT not in answer.system_fingerprint
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.content is None
    audio = choice.message.audio
    assert audio is not None
    assert audio.transcript == SAID
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(audio.data)), dtype="float32")
    assert rate == 24_000
    assert np.abs(heard - spoken_pcm(10)).max() <= 0.5 / 32768 + 1e-9
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (100, 15, 115)
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.audio_tokens == 10
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.audio_tokens == 56  # 223 mel frames of 2.22 s
    assert answer.usage.prompt_tokens_details.cached_tokens == 16


async def test_a_stream_is_the_whole_reply_in_pieces(service: Service) -> None:
    stream = await service.openai.chat.completions.create(
        **WHOLE,
        audio={"voice": "default", "format": "pcm16"},
        messages=[spoken(QUESTION.read_bytes())],
        stream=True,
        stream_options={"include_usage": True},
        seed=7,
    )
    chunks = [chunk async for chunk in stream]
    assert service.speaker.turns[0].pace == "realtime"
    assert len({chunk.id for chunk in chunks}) == 1
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert first.choices[0].delta.role == "assistant"
    audio = [chunk.choices[0].delta.model_dump(exclude_none=True)["audio"] for chunk in chunks[1:-2]]
    assert audio[0]["id"].startswith("audio_")
    assert "expires_at" in audio[-1]
    assert "".join(a.get("transcript", "") for a in audio) == SAID
    pcm = b"".join(base64.b64decode(a["data"]) for a in audio if "data" in a)
    assert np.abs(np.frombuffer(pcm, "<i2") / 32768 - spoken_pcm(10)).max() <= 0.5 / 32768 + 1e-9
    assert last.choices[0].finish_reason == "stop"
    chroma = last.chroma  # type: ignore[attr-defined]  # our extension
    assert chroma["seed"] == 7
    assert chroma["audio_s"] == 0.8
    assert 0 <= chroma["first_audio_s"] <= chroma["rtf"] * 0.8 + 60
    assert chroma["stages"] == {"backbone.prefill": 0.01}
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 115


async def test_without_audio_asked_for_the_reply_is_text(service: Service) -> None:
    whole = await service.openai.chat.completions.create(model="chroma", messages=[{"role": "user", "content": "hi"}])
    assert whole.choices[0].message.content == SAID
    assert whole.choices[0].message.audio is None
    stream = await service.openai.chat.completions.create(
        model="chroma", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID


@pytest.mark.parametrize(("form", "tolerance"), [("wav", 0), ("flac", 0), ("mp3", 1152), ("opus", 960), ("pcm16", 0)])
async def test_every_format_decodes_back_to_the_length_of_the_reply(direct: Service, form: str, tolerance: int) -> None:
    direct.speaker.script = reply(frames=40)
    answer = await direct.openai.chat.completions.create(
        **WHOLE, audio={"voice": "default", "format": form}, messages=[{"role": "user", "content": "hi"}]
    )
    audio = answer.choices[0].message.audio
    assert audio is not None
    data = base64.b64decode(audio.data)
    if form == "pcm16":
        samples = np.frombuffer(data, "<i2") / 32768
    else:
        resampler = av.AudioResampler("flt", "mono", 24_000)
        with av.open(io.BytesIO(data)) as container:  # not the library that wrote it
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            samples = np.concatenate([f.to_ndarray()[0] for f in [*frames, *resampler.resample(None)]])
    expected = spoken_pcm(40)
    assert abs(len(samples) - len(expected)) <= tolerance
    inner = slice(4_000, len(expected) - 4_000)  # a lossy codec needs a moment at each end
    assert np.corrcoef(samples[inner], expected[inner])[0, 1] > 0.99


async def test_history_names_an_earlier_reply_by_its_audio_id_where_replies_are_kept(start: Start) -> None:
    service = await start(retention_s=60)
    audio = {"voice": "default", "format": "wav"}
    first: Any = {"role": "user", "content": "hi"}
    one = await service.openai.chat.completions.create(**WHOLE, audio=audio, messages=[first])
    said = one.choices[0].message.audio
    assert said is not None
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        first,
        {"role": "assistant", "audio": {"id": said.id}},
        spoken(QUESTION.read_bytes()),
    ]
    await service.openai.chat.completions.create(**WHOLE, audio=audio, messages=messages)
    turns = service.speaker.turns
    heard = turns[1].messages
    assert [m.role for m in heard] == ["system", "user", "assistant", "user"]
    assert heard[2].parts == (Text(SAID),)
    assert turns[0].affinity == turns[1].affinity  # the same conversation goes where its prefix is

    await service.ask(messages=[{"role": "user", "content": "another conversation"}])
    assert turns[2].affinity != turns[0].affinity
    assert "another" not in turns[2].affinity

    messages[2]["audio"]["id"] = "audio_of_nobody"
    with pytest.raises(openai.NotFoundError) as told:
        await service.openai.chat.completions.create(**WHOLE, audio=audio, messages=messages)
    assert told.value.code == "audio_not_found"
    assert told.value.param == "messages[2].audio.id"


async def test_the_whole_message_of_a_reply_can_be_sent_back(service: Service) -> None:
    audio = {"voice": "default", "format": "wav"}
    one = await service.openai.chat.completions.create(
        **WHOLE, audio=audio, messages=[{"role": "user", "content": "a"}]
    )
    echoed: Any = one.choices[0].message.model_dump()
    messages: Any = [{"role": "user", "content": "a"}, echoed, {"role": "user", "content": "b"}]
    await service.openai.chat.completions.create(**WHOLE, audio=audio, messages=messages)
    assert service.speaker.turns[1].messages[1].parts == (Text(SAID),)


async def test_what_the_request_says_reaches_the_turn(direct: Service) -> None:
    changes = {"temperature": 0.7, "top_k": 5, "seed": -1, "max_completion_tokens": 9, "chroma": {"max_reply_s": 2.0}}
    assert (await direct.ask(**changes)).status_code == 200
    turn = direct.speaker.turns[0]
    assert (turn.sampling.temperature, turn.sampling.top_k, turn.sampling.seed) == (0.7, 5, 2**63 - 1)
    assert (turn.limits.max_text_tokens, turn.limits.max_reply_s, turn.limits.max_frames) == (9, 2.0, 25)
    assert (await direct.ask()).status_code == 200
    plain = direct.speaker.turns[1]
    assert (plain.sampling.temperature, plain.sampling.top_k) == (0.0, 50)  # the checkpoint's
    assert plain.sampling.seed != turn.sampling.seed
    assert plain.limits.max_reply_s == 60.0


async def test_fields_that_change_nothing_are_read_past(direct: Service) -> None:
    answer = await direct.ask(
        top_p=0.9, store=False, metadata={"a": "b"}, n=1, tools=[], stop=None, response_format={"type": "text"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("reason", ["max_reply", "max_text_tokens", "positions"])
async def test_a_reply_cut_by_a_limit_says_length(direct: Service, reason: Any) -> None:
    direct.speaker.script = reply(reason=reason)
    answer = (await direct.ask()).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["chroma"]["finish"] == reason


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus", "pcm16"])
async def test_a_reply_without_a_frame_is_an_empty_file(direct: Service, form: str) -> None:
    direct.speaker.script = reply(frames=0)
    answer = await direct.ask(audio={"voice": "default", "format": form})
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["audio"]["transcript"] == ""


async def test_codes_come_along_when_asked_for(direct: Service) -> None:
    answer = (await direct.ask(chroma={"codes": True})).json()
    codes = np.frombuffer(base64.b64decode(answer["chroma"]["codes"]), "<i2").reshape(-1, 8)
    assert codes[:, 0].tolist() == list(range(10))


async def test_a_reference_clip_is_encoded_once_however_many_ask_at_once(service: Service) -> None:
    service.speaker.encode_s = 0.05
    clip = base64.b64encode(file_of(tone(24_000, 24_000), 24_000)).decode()
    voice = {"reference": {"data": clip, "format": "wav"}, "transcript": "A tone."}
    answers = await asyncio.gather(*(service.ask(audio={"voice": voice}) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len(service.speaker.clips) == 1
    voices = {turn.voice for turn in service.speaker.turns}
    assert len(voices) == 1
    assert voices.pop().transcript == "A tone."
    await service.ask(audio={"voice": {**voice, "transcript": "Another."}})
    assert len(service.speaker.clips) == 1  # the words differ, the sound does not
    assert service.speaker.turns[-1].voice.digest != service.speaker.turns[0].voice.digest


async def test_the_built_in_voice_has_its_words_and_its_licence(direct: Service) -> None:
    await direct.ask()
    voice = direct.speaker.turns[0].voice
    about = json.loads((ROOT / "deployments/ingress/voices/default.json").read_text())
    assert voice.transcript == about["transcript"]
    assert "CC0" in about["licence"]
    assert 5 * 12.5 <= voice.frames <= 7 * 12.5


async def test_models_are_listed(service: Service) -> None:
    assert [model.id async for model in service.openai.models.list()] == ["chroma"]
    assert (await service.openai.models.retrieve("chroma")).id == "chroma"
    with pytest.raises(openai.NotFoundError):
        await service.openai.models.retrieve("FlashLabs/another")


async def test_every_response_carries_ids_and_a_sane_one_of_the_client_is_kept(service: Service) -> None:
    for path in ("/healthz", "/nowhere", "/v1/models"):
        headers = (await service.http.get(path, headers={"x-request-id": "mine-1"})).headers
        assert headers["x-request-id"] == "mine-1"
        assert headers["x-system-fingerprint"].startswith("fp_")
        assert headers["openai-processing-ms"].isdigit()
    odd = await service.http.get("/healthz", headers={"x-request-id": "a b;" * 99})
    assert odd.headers["x-request-id"].startswith("req_")


async def test_eight_streams_at_once_are_each_whole(service: Service) -> None:
    service.speaker.script = reply(frames=20, pause_s=0.01)

    async def one() -> bytes:
        got = b""
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hi"}], "stream": True, "audio": {}}
        async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        got += base64.b64decode(choice["delta"].get("audio", {}).get("data", ""))
        return got

    replies = await asyncio.gather(*(one() for _ in range(8)))
    assert len(set(replies)) == 1
    assert len(replies[0]) == 20 * 1920 * 2


async def test_more_turns_than_allowed_are_told_to_come_back(start: Start) -> None:
    service = await start(max_concurrent=1)
    service.speaker.script = reply(frames=4, pause_s=0.3)
    first = asyncio.create_task(service.ask())
    await until(lambda: service.speaker.open > 0)
    refused: httpx.Response = await service.ask()
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert (await first).status_code == 200
    assert (await service.ask()).status_code == 200
