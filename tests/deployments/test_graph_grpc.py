"""gRPC through the whole graph on a real cluster."""

import asyncio

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from deployments.ingress.rpc.stubs import speech_service_pb2 as pb
from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from tests.deployments.graph import Graph
from tests.deployments.ingress.rpc.client import Talk, ask, heard, user

pytestmark = pytest.mark.serve

TWO_S = Duration(seconds=2)
STEPS = 8  # of int16: in company the same codes are decoded within 1e-4


def same(pcm: bytes, other: bytes) -> bool:
    one, two = np.frombuffer(pcm, "<i2").astype(int), np.frombuffer(other, "<i2").astype(int)
    return len(one) == len(two) and bool(np.abs(one - two).max() <= STEPS)


async def test_a_cancelled_turn_leaves_its_siblings_of_one_call_alone(graph: Graph) -> None:
    async with grpc.aio.insecure_channel(graph.grpc) as channel:
        speech = SpeechServiceStub(channel)
        alone = await heard(speech.Generate(ask(user("Tell me about the sea."), max_reply=TWO_S)))
        whole = b"".join(told.response_delta.audio for told in alone)
        assert len(whole) == 2 * 24_000 * 2
        for _ in range(3):
            talk = await Talk.open(speech, max_reply=TWO_S)
            for _ in range(4):
                beside = pb.CreateResponse(out_of_band=True, messages=[user("Tell me about the sea.")])
                await talk.send(create_response=beside)
            first = (await talk.one("response_delta")).response_id
            await talk.send(cancel_response=pb.CancelResponse(response_id=first))
            await talk.end()
            done = talk.all("response_done")
            assert [one.finish_reason for one in done if one.response_id == first] == [pb.FINISH_REASON_CANCELLED]
            assert len(talk.audio(first)) < len(whole)
            others = [one for one in done if one.response_id != first]
            assert len(others) == 3
            for one in others:
                assert one.finish_reason == pb.FINISH_REASON_LENGTH
                assert same(talk.audio(one.response_id), whole)
    await graph.idle()


async def test_a_hung_up_call_leaves_those_of_its_connection_alone_and_frees_every_slot(graph: Graph) -> None:
    async with grpc.aio.insecure_channel(graph.grpc) as channel:
        speech = SpeechServiceStub(channel)
        for _ in range(3):
            calls = [speech.Generate(ask(user("Tell me about the sea."), max_reply=TWO_S)) for _ in range(4)]
            await asyncio.gather(*(call.read() for call in calls))
            calls[0].cancel()
            for told in await asyncio.gather(*(heard(call) for call in calls[1:])):
                assert sum(len(one.response_delta.audio) for one in told) == 2 * 24_000 * 2
        await graph.idle()


async def test_a_deadline_ends_the_turn_at_every_stage(graph: Graph) -> None:
    async with grpc.aio.insecure_channel(graph.grpc) as channel:
        call = SpeechServiceStub(channel).Generate(
            ask(user("Go on and on."), max_reply=Duration(seconds=50)), timeout=1.0
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await heard(call)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await graph.idle(within_s=10)
