"""What a collector is sent of a turn: one trace through all stages, which goes on with the caller's."""

import secrets

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments.collector import Collector, Span
from tests.deployments.graph import Graph
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.rpc.client import ask, heard, user
from tests.deployments.test_graph import client

pytestmark = pytest.mark.serve

CALLED_BY = {"reply": "", "codec": "reply", "backbone": "codec", "reasoner": "backbone", "decoder": "backbone"}


def fresh() -> tuple[str, dict[str, str]]:
    """A trace of the caller's own, and the header that says so."""
    trace = secrets.token_hex(16)
    return trace, {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}


def whole(spans: list[Span]) -> bool:
    return {span.name for span in spans} == set(CALLED_BY)


async def test_a_turn_is_one_trace_through_all_stages(watched: Graph, collector: Collector) -> None:
    trace, header = fresh()
    async with client() as http:
        http.headers.update({**header, "x-request-id": "traced-1"})
        answer = await watched.ask(http, seed=5)
    spans = {span.name: span for span in await collector.trace(trace, whole)}
    for name, span in spans.items():
        assert span.stage == {"reply": "ingress"}.get(name, name)
        above = spans.get(CALLED_BY[name])
        assert span.parent == (above.id if above else header["traceparent"].split("-")[2])
        if above is not None:
            assert above.began_ns <= span.began_ns < span.ended_ns
    reply = spans["reply"].attributes
    assert reply["chroma.request_id"] == "traced-1"
    assert reply["chroma.protocol"] == "chat"
    assert reply["chroma.outcome"] == "incomplete"  # it was cut at two seconds
    assert reply["chroma.audio_s"] == 2.0
    assert 0 < reply["chroma.first_audio_s"] < 20
    assert spans["codec"].attributes["chroma.frames"] == len(answer.codes) == 25
    assert spans["codec"].events == spans["backbone"].events == ("admitted", "first item")
    assert not any(span.fault for span in spans.values())
    said = str([span.attributes for span in spans.values()])
    assert answer.words.strip()
    assert answer.words.strip() not in said


async def test_every_protocol_goes_on_with_the_callers_trace(watched: Graph, collector: Collector) -> None:
    trace, header = fresh()
    async with grpc.aio.insecure_channel(watched.grpc) as channel:
        request = ask(user("Tell me about the sea."), max_reply=Duration(seconds=1))
        await heard(SpeechServiceStub(channel).Generate(request, metadata=tuple(header.items())))
    spans = await collector.trace(trace, whole)
    assert [span.attributes["chroma.protocol"] for span in spans if span.name == "reply"] == ["grpc"]

    trace, header = fresh()
    live = await Client.to(watched.url.replace("http", "ws"), headers=header)
    await live.send("session.update", session={"type": "realtime", "chroma": {"max_reply_s": 1.0}})
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
    await live.send("conversation.item.create", item=item)
    await live.send("response.create")
    done = (await live.one("response.done"))["response"]
    await live.close()
    spans = await collector.trace(trace, whole)
    assert [span.attributes["chroma.response_id"] for span in spans if span.name == "reply"] == [done["id"]]


async def test_who_hangs_up_and_what_is_refused_are_told_apart(watched: Graph, collector: Collector) -> None:
    trace, header = fresh()
    async with client() as http:
        http.headers.update(header)
        await watched.ask(http, leave=lambda heard: heard.pieces >= 2)
    spans = {span.name: span for span in await collector.trace(trace, whole)}
    assert spans["reply"].attributes["chroma.outcome"] == "cancelled"
    assert not any(span.fault for span in spans.values())

    trace, header = fresh()
    async with client() as http:
        http.headers.update(header)
        long = "sea " * 9000
        messages = [{"role": "user", "content": long}]
        told = await watched.ask(http, messages=messages)
    assert told.status == 400
    spans = {span.name: span for span in await collector.trace(trace, lambda spans: len(spans) >= 4)}
    assert spans["reasoner"].fault == told.error["code"] == spans["reply"].attributes["chroma.outcome"]
    assert spans["reply"].fault == ""  # it is the caller's


async def test_what_a_caller_does_not_want_traced_is_not(watched: Graph, collector: Collector) -> None:
    trace, header = fresh()
    async with client() as http:
        http.headers.update({"traceparent": header["traceparent"][:-1] + "0"})
        await watched.ask(http)
    last, header = fresh()
    async with client() as http:
        http.headers.update(header)
        await watched.ask(http)
    await collector.trace(last, whole)
    assert not [span for span in collector.spans if span.trace == trace]
