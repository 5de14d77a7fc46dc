"""The load test's callers, over each protocol, before the real servers and a scripted speaker."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from chroma_models.errors import Overloaded
from loadtest.load.behaviour import Ending, Script, TurnPlan
from loadtest.load.call import Call, Line
from loadtest.load.conversation import Conversation
from loadtest.load.grpc_call import GrpcCall
from loadtest.load.http_call import HttpCall
from loadtest.load.realtime_call import RealtimeCall
from loadtest.load.records import TurnRecord
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.scripted import Script as Speech
from tests.deployments.ingress.scripted import Scripted, items, reply
from tests.deployments.ingress.session.speech import spoken

CALLS: tuple[Callable[[Line], Call], ...] = (RealtimeCall, GrpcCall, HttpCall)
CLIP = np.frombuffer(spoken(), "<i2")


def speaker(speech: Speech) -> Scripted:
    scripted = Scripted()
    scripted.script = speech
    return scripted


def script(*endings: Ending) -> Script:
    return Script(0, False, tuple(TurnPlan(0.1, 0, 1.0, ending, 0.5) for ending in endings), seed=1)


async def converse(
    service: Service, call: Callable[[Line], Call], *endings: Ending, key: str = "k"
) -> list[TurnRecord]:
    """In a thread, as it has a greenlet elsewhere."""
    line = Line(
        f"http://127.0.0.1:{service.server.port}", f"127.0.0.1:{service.server.grpc_port}", key, 8.0, slow=False, seed=1
    )
    written: list[TurnRecord] = []
    conversation = Conversation(call(line), script(*endings), "ada", [CLIP], written.append)
    await asyncio.to_thread(conversation.run)
    return written


@pytest.mark.slow
async def test_answers_are_heard_interrupted_cancelled_and_left(start: Start) -> None:
    service = await start(speaker(reply(frames=28, pause_s=0.3)))
    endings: tuple[Ending, ...] = ("barge_in", "heard", "cancel", "hang_up")
    told = await asyncio.gather(*(converse(service, call, *endings) for call in CALLS))
    for records in told:
        assert [(turn.outcome, turn.code) for turn in records] == [
            ("cut", None),
            ("heard", None),
            ("cut", None),
            ("hung_up", None),
        ], records
        for turn in records:
            assert turn.first_audio_s is not None
            assert turn.latency_s is not None
            assert 0.3 <= turn.first_audio_s <= turn.latency_s + 0.05
        assert records[1].audio_s == pytest.approx(28 * 0.08)
        assert records[0].audio_s < 28 * 0.08
        assert records[1].gap_s is not None
    for records in told[:2]:  # over HTTP nobody says that it is silent
        assert records[2].silence_s is not None
        assert records[0].latency_s - records[0].first_audio_s > 0.3  # type: ignore[operator]  # the end of speech


@pytest.mark.slow
async def test_a_refusal_is_told_from_a_failure(start: Start) -> None:
    full = await start(speaker(items(Overloaded("full", 1.0))))
    for records in await asyncio.gather(*(converse(full, call, "heard") for call in CALLS)):
        assert [(turn.outcome, turn.code) for turn in records] == [("refused", "overloaded")]


async def test_a_caller_without_a_key_is_told_so_and_goes(start: Start) -> None:
    closed = await start(auth=True)
    for call in (RealtimeCall, GrpcCall):
        (record,) = await converse(closed, call, "heard", key="wrong")
        assert (record.outcome, record.code) == ("failed", "invalid_api_key")
