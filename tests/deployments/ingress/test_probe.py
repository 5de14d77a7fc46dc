"""The replica's own turns, and where their outcome is told."""

import asyncio

from chroma_models.errors import Overloaded
from chroma_models.types import Admitted
from deployments.ingress.health import Probed
from deployments.ingress.probe import Probe
from tests.deployments.ingress.conftest import Start
from tests.deployments.ingress.scripted import FINGERPRINT, Scripted, finished, items, reply, until


async def test_each_probe_is_told_and_stands_in_readiness(start: Start) -> None:
    speaker, told = Scripted(), list[Probed]()
    service = await start(speaker, probe_interval_s=0.05, first_audio_timeout_s=0.3)
    service.app.health.ready = True
    assert "probe" not in (await service.http.get("/readyz")).json()
    running = asyncio.create_task(Probe(service.app.services, told.append).run())
    scripts = [
        ("ok", reply()),
        ("overloaded", items(Overloaded("Full.", 1.0))),
        ("stage_unavailable", items(Admitted(FINGERPRINT), finished(0))),  # an end, and no audio before it
        ("turn_timeout", items(Admitted(FINGERPRINT), 5.0)),
        ("internal_error", items(RuntimeError("a fault of ours"))),
        ("ok", reply()),
    ]
    try:
        for outcome, script in scripts:
            speaker.script, wanted = script, len(told) + 2  # the first may have begun before
            await until(lambda wanted=wanted: len(told) >= wanted)
            assert told[-1].outcome == outcome
            assert (told[-1].first_audio_s is not None) == (outcome == "ok")
            answer = await service.http.get("/readyz")
            assert answer.status_code == 200  # a graph that is away takes no replica out: no other has another one
            assert answer.json()["probe"]["outcome"] == outcome
    finally:
        running.cancel()
    await speaker.all_closed()
    assert {turn.affinity for turn in speaker.turns} == {"probe"}
