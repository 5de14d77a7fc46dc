"""A watermark by setting: heard again in every reply of every protocol; what cannot be marked is not spoken."""

import asyncio
import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chroma_models.errors import InvalidRequest
from chroma_models.types import Limits, Message, Sampling, Text, Turn
from deployments.ingress.provenance.keys import claims_of
from deployments.ingress.services import Services
from deployments.ingress.watermark import load
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.scripted import reply, spoken_pcm
from tests.deployments.ingress.spread_spectrum import SpreadSpectrum, strength

HERE = "tests.deployments.ingress.spread_spectrum"


def watermark_of(service: Service) -> SpreadSpectrum:
    marker = service.app.services.marker
    assert marker is not None
    made = marker._watermark
    assert isinstance(made, SpreadSpectrum)
    return made


async def whole(service: Service, form: str = "wav") -> np.ndarray:
    answer = await service.ask(audio={"voice": "default", "format": form})
    assert answer.status_code == 200
    file = base64.b64decode(answer.json()["choices"][0]["message"]["audio"]["data"])
    return soundfile.read(io.BytesIO(file), dtype="float32")[0]


async def streamed(service: Service) -> np.ndarray:
    text = (await service.ask(audio={"voice": "default"}, stream=True)).text
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in text.splitlines() if line.startswith("data: {")]
    pcm = b"".join(base64.b64decode((delta.get("audio") or {}).get("data", "")) for delta in deltas)
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


async def test_it_is_heard_again_in_replies_of_every_kind_and_was_not_there_without_it(start: Start) -> None:
    without, service = await start(), await start(watermark=f"{HERE}:SpreadSpectrum")
    for one in (without, service):
        one.speaker.script = reply(frames=100)
    plain, marked = await whole(without), await whole(service)
    assert len(marked) == len(plain) == 100 * 1920
    assert strength(marked) > 0.9
    assert abs(strength(plain)) < 0.3
    assert np.abs(marked - plain).max() < 0.011  # sample i is sample i
    assert np.array_equal(await streamed(service), marked)
    assert strength(await whole(service, "mp3")) > 0.5
    client = await Client.connect(service)
    done = await client.answered()
    heard = np.frombuffer(client.audio(done["id"]), "<i2").astype(np.float32) / 32768
    assert np.array_equal(heard, marked)
    assert claims_of(done["chroma"]["provenance"]["jws"])["watermark"] == "spread-spectrum-test"
    assert len(set(watermark_of(service).begun)) == 4
    assert threading.main_thread().name not in watermark_of(service).threads
    await client.close()


async def test_replies_at_once_are_marked_together_and_each_from_its_own_beginning(start: Start) -> None:
    service = await start(watermark=f"{HERE}:slow")
    service.speaker.script = reply(frames=50, group=4)
    heard = await asyncio.gather(*(whole(service) for _ in range(6)))
    assert all(strength(one) > 0.9 for one in heard)
    assert max(watermark_of(service).batches) > 1
    assert len(watermark_of(service).threads) == 1


@pytest.mark.parametrize("broken", ["Shortening", "Failing"])
async def test_a_reply_that_cannot_be_marked_is_not_spoken(broken: str, start: Start) -> None:
    service = await start(watermark=f"{HERE}:{broken}")
    answer = await service.ask(audio={"voice": "default", "format": "wav"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stage_unavailable")
    assert "ink" not in answer.text
    await service.speaker.all_closed()
    assert service.app.health.live == 0


async def test_a_client_that_hangs_up_harms_nobody_it_was_marked_with(start: Start) -> None:
    service = await start(watermark=f"{HERE}:slow")
    service.speaker.script = reply(frames=30, group=2)
    leaving = [asyncio.create_task(whole(service)) for _ in range(3)]
    staying = [asyncio.create_task(whole(service)) for _ in range(3)]
    await asyncio.sleep(0.15)
    for task in leaving:
        task.cancel()
    for one in await asyncio.gather(*staying):
        assert strength(one) > 0.8
    await asyncio.gather(*leaving, return_exceptions=True)
    await service.speaker.all_closed()


async def test_without_one_a_reply_passes_through_nothing_more(direct: Service) -> None:
    services: Services = direct.app.services
    voice = await services.voices.built_in()
    turn = Turn("t", "a", (Message("user", (Text("hello"),)),), voice, Sampling(0), Limits())
    async with services.admitted(turn) as (_, items):
        assert items.__name__ == "watch"
        heard = b"".join([getattr(item, "pcm", b"") async for item in items])
    assert services.marker is None
    assert heard == spoken_pcm(10).tobytes()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("", "should be package.module:factory"),
        ("nowhere", "should be package.module:factory"),
        ("nowhere:at_all", "No module named 'nowhere'"),
        (f"{HERE}:missing", "has no attribute 'missing'"),
        (f"{HERE}:CONSTANT", "is not callable"),
        (f"{HERE}:nothing", "is no watermark: it wants begin, mark"),
        (f"{HERE}:unmade", "could not be made: RuntimeError: no weights here"),
    ],
)
def test_a_name_that_is_none_is_refused_in_one_line(setting: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        load(setting)
    assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_a_bad_name_stops_the_start_with_one_line() -> None:
    with socket.socket() as one, socket.socket() as other:
        ports = []
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    done = subprocess.run(
        [Path(sys.executable).parent / "chroma", "serve", "--no-auth", "--port", ports[0], "--grpc-port", ports[1]],
        env={**os.environ, "CHROMA_MODELS__INGRESS__WATERMARK": "nowhere:at_all"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("chroma: models.ingress.watermark is 'nowhere:at_all'")
    assert len(done.stderr.strip().splitlines()) == 1
