"""What the log says of a request, and what it never says, however much it is told to say."""

import io
import json
import logging
import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from chroma_models.types import Admitted
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from deployments.logs import configure, report
from deployments.settings import Logs
from tests.deployments.ingress.conftest import Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.rpc.client import ask, heard
from tests.deployments.ingress.scripted import FINGERPRINT, Scripted, items

CLIENTS = ("httpx", "httpcore", "openai", "websockets.client")  # the test's own, in this process
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
Lines = list[dict[str, Any]]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The whole log of this process as JSON; a test may turn any of it up."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in ("deployments", "chroma_models")]
    before = (list(root.handlers), root.level, [logger.level for logger in ours])
    configure(Logs(format="json", level="info"), "ingress")
    out = io.StringIO()
    root.handlers[0].setStream(out)  # type: ignore[attr-defined]
    for name in CLIENTS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    yield out
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for logger, level in zip(ours, before[2], strict=True):
        logger.setLevel(level)
    for name in ("deployments.progress", *CLIENTS):
        logging.getLogger(name).setLevel(logging.NOTSET)


def read(out: io.StringIO) -> Lines:
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_every_line_of_a_request_says_whose_it_is(start: Start, lines: io.StringIO) -> None:
    speaker = Scripted()
    speaker.by_word["break"] = items(Admitted(FINGERPRINT), RuntimeError("out of memory"))
    service = await start(speaker, auth=True)
    key = await service.key("acme")
    headers = {"authorization": f"Bearer {key}", "x-request-id": "mine-1"}
    body = {"model": "chroma", "messages": [{"role": "user", "content": "break it"}]}
    assert (await service.http.post("/v1/chat/completions", headers=headers, json=body)).status_code == 500
    told = [line for line in read(lines) if line["request_id"] == "mine-1"]
    assert {line["tenant"] for line in told} == {"acme"}
    assert {line["level"] for line in told} == {"ERROR", "INFO"}
    assert any("out of memory" in line.get("exc_info", "") for line in told)
    assert all(line["stage"] == "ingress" and line["time"] and line["logger"] for line in told)

    live = await Client.connect(service, key)
    await live.answered("break it")
    await live.close()
    broken = [line for line in read(lines) if line["logger"] == "deployments.ingress.session.response"]
    assert [line["tenant"] for line in broken] == ["acme"]
    assert broken[0]["request_id"].startswith("req_")


async def test_a_path_adds_no_line_of_its_own(start: Start, lines: io.StringIO) -> None:
    service = await start()
    await service.http.get("/%0arequest%20x:%20forged")
    assert "\n" not in next(line["message"] for line in read(lines) if "forged" in line["message"])


@pytest.mark.parametrize("level", LEVELS)
async def test_no_secret_is_in_the_log_at_any_level(start: Start, lines: io.StringIO, level: int) -> None:
    admin, signing, hashing = (secrets.token_hex(20) for _ in range(3))
    service = await start(auth=True, admin_key=admin, token_secret=signing, key_secret=hashing)
    key = await service.key("acme")
    wrong = key[:-6] + "wrong0"
    logging.getLogger().setLevel(level)
    for name in ("deployments", "chroma_models"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("probe").log(level, "the log is open")
    body = {"model": "chroma", "messages": [{"role": "user", "content": "hello"}]}
    for shown in (key, wrong, admin):
        headers = {"authorization": f"Bearer {shown}"}
        await service.http.post("/v1/chat/completions", headers=headers, json=body)
        await service.http.get("/v1/audio/voices/none", headers=headers)
        await service.http.get("/v1/admin/tenants", headers=headers)
        await service.http.post("/v1/admin/tenants/acme/keys", headers=headers, json={})
    told = await service.http.post(
        "/v1/realtime/client_secrets",
        headers={"authorization": f"Bearer {key}"},
        json={"session": {"type": "realtime"}},
    )
    token = told.json()["value"]
    for shown in (key, token):
        live = await Client.connect(service, shown)
        await live.answered()
        await live.close()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.server.grpc_port}") as channel:
        metadata = (("authorization", f"Bearer {key}"),)
        await heard(SpeechServiceStub(channel).Generate(ask(), metadata=metadata))
    text = lines.getvalue()
    assert "the log is open" in text
    for secret in (key, wrong, key.rsplit("_", 1)[1], admin, signing, hashing, token):
        assert secret not in text, f"a secret was logged at {logging.getLevelName(level)}"


def test_progress_is_a_line_of_json_too(lines: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    report("codec")("loading weights")
    assert read(lines)[-1]["message"] == "loading weights"
    configure(Logs(), "codec")
    report("codec")("ready")
    assert capsys.readouterr().out.startswith("[codec] ready (")
