"""What is fuzzed: one function a target, which reads a case's bytes and lets a ChromaError pass as an answer."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, get_args

import atheris
import numpy as np
import yaml

with atheris.instrument_imports(include=["deployments", "chroma_models"]):
    from chroma_models.errors import ChromaError
    from deployments.ingress.audio_in import UploadFormat, decode, decode_base64, question
    from deployments.ingress.callers import Caller
    from deployments.ingress.config import AudioLimits, IngressConfig
    from deployments.ingress.conversation import listen, resolve_replies
    from deployments.ingress.form_body import parse_form
    from deployments.ingress.json_body import parse_object
    from deployments.ingress.live_audio import ALAW_8K, MULAW_8K, PCM_24K, Hearing, Voicing
    from deployments.ingress.openai_parse import parse_chat
    from deployments.ingress.realtime.commands import Commands
    from deployments.ingress.realtime.connection import Connection
    from deployments.ingress.realtime.session_shape import SessionShape
    from deployments.ingress.recording import kept
    from deployments.ingress.replies import ReplyStore
    from deployments.ingress.rpc.messages import items_of
    from deployments.ingress.rpc.settings import settings_of
    from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
    from deployments.ingress.services import Services
    from deployments.settings import Settings

from google.protobuf.message import DecodeError

from tests.deployments.ingress.conftest import DEFAULTS
from tests.deployments.ingress.scripted import Scripted
from tests.fuzz import samples
from tests.fuzz.trees import changed

FORMATS = [form for kind in get_args(UploadFormat) for form in get_args(kind)]
LIVE = (PCM_24K, MULAW_8K, ALAW_8K)
LIMITS = AudioLimits()
CONFIG = IngressConfig()
CALLER = Caller("public", "open")


@dataclass(frozen=True)
class Target:
    """run: one case; any exception but a ChromaError is a find. seeds: cases to begin from, made when asked for."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest_bytes: int = 8_192


def audio(data: bytes) -> None:
    """First byte: format and what is done with it. The rest: the file."""
    if not data:
        return
    form, work, file = FORMATS[data[0] % len(FORMATS)], data[0] // len(FORMATS) % 3, data[1:]
    with suppress(ChromaError):
        if work == 0:
            decode(file, form, 24_000, LIMITS)
        elif work == 1 and form in ("wav", "mp3", "flac", "pcm16"):
            question(file, form, LIMITS)
        else:
            kept(file, LIMITS, "audio_sample")


def audio_seeds() -> list[bytes]:
    found = [(FORMATS.index(form), data) for form, data in samples.recordings()]
    return [bytes([index + work * len(FORMATS)]) + data for index, data in found for work in range(3)]


def live_audio(data: bytes) -> None:
    """First byte: format. Then pieces, each after a byte for its length; audio comes back the way it went in."""
    if not data:
        return
    form, rest = LIVE[data[0] % 3], data[1:]
    hearing, voicing = Hearing(form), Voicing(form)
    heard = 0
    while rest:
        size, lazily = rest[0] * 8 + rest[0] % 2, rest[0] % 3 == 0
        piece, rest = rest[1 : 1 + size], rest[1 + size :]
        with suppress(ChromaError):
            heard += len(hearing.hear(piece, lazily))
        voiced = np.frombuffer(piece[: len(piece) // 2 * 2], "<i2") / np.float32(32768.0)
        voicing.say(voiced.astype("<f4").tobytes(), last=not rest)
    heard += len(hearing.flush())
    assert heard <= len(data) * 2 + 1, "more was heard than was sent"


def chat(data: bytes) -> None:
    body = _json_text(data, samples_of("chat"))
    with suppress(ChromaError):
        request = parse_chat(parse_object(body, CONFIG), CONFIG.model_id)
        said = resolve_replies(request, ReplyStore(4), "public")
        listen(request.messages, said, LIMITS)


def realtime(data: bytes) -> None:
    """Up to eight events of one session, each told what is wrong with it; a fault of ours is raised."""
    provider = atheris.FuzzedDataProvider(data)
    events = samples_of("events")
    texts = [
        provider.ConsumeUnicodeNoSurrogates(400)  # a text frame is UTF-8
        if provider.ConsumeIntInRange(0, 9) == 0
        else json.dumps(changed(events[provider.ConsumeIntInRange(0, len(events) - 1)], provider))
        for _ in range(provider.ConsumeIntInRange(1, 8))
    ]
    _run(_session(texts))


async def _session(texts: list[str]) -> None:
    services = _services()
    commands = Commands(services, CALLER, SessionShape.default(CONFIG.model_id), None)
    connection = Connection(None, services, commands.session, commands)  # type: ignore[arg-type]
    try:
        for text in texts:
            with suppress(ChromaError):
                await commands.do(await connection._parse(text))
    finally:
        await commands.session.close()


def settings(data: bytes) -> None:
    """A settings file: any text, or a tree that is almost right."""
    text = data[1:]
    if data[:1] and data[0] % 2:
        provider = atheris.FuzzedDataProvider(text)
        with suppress(yaml.YAMLError, UnicodeEncodeError):  # a lone surrogate is in no file
            text = yaml.dump(changed(samples_of("settings")[0], provider), allow_unicode=True).encode()
    file = _folder() / "settings.yaml"
    file.write_bytes(text)
    with suppress(ChromaError):
        Settings.load(file)


def form(data: bytes) -> None:
    """First byte: the content type. The rest: the body."""
    kinds = [b"multipart/form-data; boundary=edge", b"multipart/form-data", b"text/plain", data[1:60]]
    scope = {"headers": [(b"content-type", kinds[data[0] % len(kinds)] if data else b"")]}
    with suppress(ChromaError):
        found = parse_form(scope, data[1:])
        found.only("name", "consent", "transcript", "audio_sample")
        found.text("name", 256)
        kept(found.file("audio_sample"), LIMITS, "audio_sample")


def grpc(data: bytes) -> None:
    """First byte: the message. The rest: as it came off the wire."""
    request = pb.ConverseRequest() if data[:1] and data[0] % 2 else pb.GenerateRequest()
    try:
        request.ParseFromString(data[1:])
    except DecodeError:
        return  # grpc's own answer
    with suppress(ChromaError):
        if isinstance(request, pb.GenerateRequest):
            items_of(request.messages, LIMITS, "messages")
        elif request.HasField("add_message"):
            items_of([request.add_message], LIMITS, "add_message")
        _run(settings_of(request.config, _services(), CALLER))


def grpc_seeds() -> list[bytes]:
    wav = next(data for kind, data in samples.recordings() if kind == "wav")
    message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="hello"), pb.Part(audio=pb.AudioClip(content=wav))])
    config = pb.SessionConfig(model="chroma", voice_id="default", instructions="Be brief.")
    return [
        b"\0" + pb.GenerateRequest(messages=[message], config=config).SerializeToString(),
        b"\1" + pb.ConverseRequest(add_message=message).SerializeToString(),
        b"\1" + pb.ConverseRequest(config=config).SerializeToString(),
    ]


def base64_text(data: bytes) -> None:
    with suppress(ChromaError):
        decode_base64(data.decode("latin-1"))


@cache
def samples_of(name: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = getattr(samples, name)()
    return made


def _json_text(data: bytes, trees: list[dict[str, Any]]) -> bytes:
    """First byte odd: a tree that is almost right. Even: the text itself."""
    if not data[:1] or data[0] % 2 == 0:
        return data[1:]
    provider = atheris.FuzzedDataProvider(data[1:])
    return json.dumps(changed(trees[provider.ConsumeIntInRange(0, len(trees) - 1)], provider)).encode()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _run(work: Coroutine[Any, Any, object]) -> None:
    _loop().run_until_complete(work)


@cache
def _services() -> Services:
    return Services(Scripted(), IngressConfig(database_url=f"sqlite:///{_folder() / 'voices.db'}"), DEFAULTS)


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="chroma-fuzz-"))


def _seeded(texts: list[bytes]) -> list[bytes]:
    return [b"\0" + text for text in texts] + [b"\1", b"\1" + bytes(range(64))]


TARGETS = {
    "audio": Target(audio, audio_seeds, 16_384),
    "live-audio": Target(live_audio, lambda: [bytes([i]) + bytes(range(256)) * 4 for i in range(3)], 4_096),
    "base64": Target(base64_text, lambda: [b"UklGRg==", b"data:audio/wav;base64,UklGRg=="], 1_024),
    "chat": Target(chat, lambda: _seeded(samples.as_bytes(samples.chat()))),
    "realtime": Target(realtime, lambda: [bytes(range(i, i + 100)) for i in range(0, 150, 10)], 2_048),
    "settings": Target(settings, lambda: _seeded([yaml.dump(tree).encode() for tree in samples.settings()]), 4_096),
    "form": Target(form, lambda: [bytes([kind]) + samples.form() for kind in range(4)], 16_384),
    "grpc": Target(grpc, grpc_seeds),
}
