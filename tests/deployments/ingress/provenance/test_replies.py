"""Every protocol's replies carry a statement that the published keys sign."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from deployments.cli.verify import verify
from deployments.ingress.provenance.keys import checked
from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.rpc.client import Talk, ask, heard
from tests.deployments.ingress.scripted import reply

Json = dict[str, Any]


async def signed(service: Service, jws: str) -> Json:
    """What the statement claims, by the keys that the server publishes."""
    keys = (await service.http.get("/v1/provenance/keys")).json()["keys"]
    return checked(jws, keys)[0]


def sha256(audio: bytes) -> str:
    return hashlib.sha256(audio).hexdigest()


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus", "pcm16"])
async def test_a_whole_reply_says_it_in_the_answer_and_in_the_file(form: str, service: Service, tmp_path: Path) -> None:
    answer = (await service.ask(audio={"voice": "default", "format": form})).json()
    told = answer["chroma"]["provenance"]
    claims = await signed(service, told["jws"])
    assert claims == {key: value for key, value in told.items() if key != "jws"}
    assert (claims["model"], claims["voice"], claims["response"]) == ("chroma", "default", answer["id"])
    assert claims["created_at"] >= answer["created"]
    file = tmp_path / "reply"
    file.write_bytes(base64.b64decode(answer["choices"][0]["message"]["audio"]["data"]))
    if form == "pcm16":
        assert claims["audio"] == {"sha256": sha256(file.read_bytes()), "of": "pcm16", "rate_hz": 24_000}
        return
    keys = tmp_path / "keys.json"
    keys.write_text((await service.http.get("/v1/provenance/keys")).text)
    assert told["jws"].encode() in file.read_bytes()
    assert verify(file, str(keys)) == 0


async def test_a_streamed_reply_says_it_last_of_all_it_sent(service: Service) -> None:
    body = {"audio": {"voice": "default"}, "stream": True, "stream_options": {"include_usage": True}}
    lines = (await service.ask(**body)).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    audio = b"".join(
        base64.b64decode(choice["delta"].get("audio", {}).get("data", ""))
        for one in chunks
        for choice in one["choices"]
    )
    told = [one["chroma"]["provenance"] for one in chunks if "chroma" in one]
    assert len(told) == 2  # with the finish reason and with the usage
    assert told[0] == told[1]
    claims = await signed(service, told[0]["jws"])
    assert claims["audio"]["sha256"] == sha256(audio)
    assert claims["response"] == chunks[0]["id"]


async def test_an_answer_in_writing_has_no_audio_to_speak_of(service: Service) -> None:
    told = (await service.ask()).json()["chroma"]["provenance"]
    assert (await signed(service, told["jws"]))["audio"] is None


async def test_keys_are_for_everybody_and_tenants_are_nobodys_name(start: Start) -> None:
    service = await start(auth=True)
    tenants = []
    for key in (await service.key("acme"), await service.key("acme"), await service.key("zeta")):
        body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}]}
        answer = await service.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        tenants.append((await signed(service, answer.json()["chroma"]["provenance"]["jws"]))["tenant"])
        assert "acme" not in answer.text
    assert tenants[0] == tenants[1] != tenants[2]
    assert (await service.http.get("/v1/models")).status_code == 401
    keys = (await service.http.get("/v1/provenance/keys")).json()["keys"]
    assert [set(key) for key in keys] == [{"crv", "kty", "x", "kid", "alg", "use"}]  # d would be the private half


async def test_a_live_response_says_it_when_it_is_done(start: Start) -> None:
    service = await start()
    client = await Client.connect(service)
    done = await client.answered()
    claims = await signed(service, done["chroma"]["provenance"]["jws"])
    assert (claims["response"], claims["voice"]) == (done["id"], "default")
    assert claims["audio"] == {"sha256": sha256(client.audio(done["id"])), "of": "pcm16", "rate_hz": 24_000}
    await client.send(
        "session.update",
        session={"type": "realtime", "audio": {"output": {"format": {"type": "audio/pcmu"}}}},
    )
    done = await client.answered()
    claims = await signed(service, done["chroma"]["provenance"]["jws"])
    assert claims["audio"] == {"sha256": sha256(client.audio(done["id"])), "of": "mulaw", "rate_hz": 8_000}
    await client.close()


async def test_of_a_response_that_was_cut_short_it_says_no_hash(start: Start) -> None:
    service = await start()
    service.speaker.script = reply(frames=200, pause_s=0.05)
    client = await Client.connect(service)
    await client.say("hello")
    await client.send("response.create")
    await client.one("response.output_audio.delta")
    await client.send("response.cancel")
    done = (await client.one("response.done"))["response"]
    assert done["status"] == "cancelled"
    assert (await signed(service, done["chroma"]["provenance"]["jws"]))["audio"] is None
    await client.close()


@pytest.fixture
async def speech(service: Service) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}"))
        yield SpeechServiceStub(channel)


async def test_grpc_says_it_in_the_last_message(service: Service, speech: Any) -> None:
    told = await heard(speech.Generate(ask(output_audio=pb.AudioConfig(sample_rate_hertz=16_000))))
    done = told[-1].response_done
    audio = b"".join(one.response_delta.audio for one in told)
    claims = await signed(service, done.provenance.jws)
    assert claims["audio"] == {"sha256": sha256(audio), "of": "pcm16", "rate_hz": 16_000}
    assert done.provenance.audio_sha256 == sha256(audio)
    assert done.provenance.response_id == done.response_id == claims["response"]
    assert (done.provenance.model, done.provenance.voice) == ("chroma", "default")
    assert done.provenance.created.seconds == claims["created_at"]
    assert done.provenance.tenant == claims["tenant"]
    talk = await Talk.open(speech)
    await talk.say("hello")
    done = await talk.one("response_done")
    assert (await signed(service, done.provenance.jws))["audio"]["sha256"] == sha256(talk.audio(done.response_id))
    await talk.end()


def test_verify_asks_a_server_for_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network alone is not real here."""
    from tests.deployments.ingress.provenance.replies import Signer

    signer = Signer(tmp_path)
    file, _ = signer.sealed("wav")
    path = tmp_path / "reply.wav"
    path.write_bytes(file)
    asked = []

    def get(url: str, **_: Any) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, text=signer.keys.read_text(), request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    assert verify(path, "https://voices.example/v1/provenance/keys") == 0
    assert asked == ["https://voices.example/v1/provenance/keys"]
