"""A steady mixture of callers: HTTP, WebSocket and gRPC, some of whom hang up, and some of whom interrupt."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import grpc
import httpx
from google.protobuf.duration_pb2 import Duration

from deployments.ingress.rpc.stubs.speech_service_pb2_grpc import SpeechServiceStub
from loadtest.live_session import LiveSession
from loadtest.microphone import recording
from tests.chaos.listeners import Asked, hear
from tests.deployments.graph import QUESTION, Graph
from tests.deployments.ingress.rpc.client import Talk
from tests.soak.samples import Samples

HANGS_UP = 0.25  # share of the turns over HTTP and gRPC that end in the middle
PLAYED_S = 0.5  # of a reply, before it is interrupted
LONG_S = 8.0  # longest reply that is interrupted
THINKS_S = 1.0
PIECE_S = 0.08  # of a microphone's


@dataclass
class Load:
    """What everybody does until it is over."""

    graph: Graph
    samples: Samples
    reply_s: float
    over: asyncio.Event = field(default_factory=asyncio.Event)
    turns: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    owners: dict[str, int] = field(default_factory=dict)

    async def call(self, number: int, seed: int) -> None:
        """One caller. Every third comes by WebSocket, every sixth by gRPC."""
        rng = random.Random(seed)
        visit: Callable[[random.Random, int], Awaitable[None]]
        visit = self._live if number % 3 == 1 else self._grpc if number % 6 == 5 else self._http
        while not self.over.is_set():
            try:
                await visit(rng, number)
            except Exception as error:
                self.faults.append(f"{visit.__name__}: {type(error).__name__}: {error}")
                await asyncio.sleep(1.0)
            await asyncio.sleep(rng.uniform(0.5, 1.5) * THINKS_S)

    def _count(self, word: str, first_audio_s: float | None = None) -> None:
        self.turns[word] += 1
        if first_audio_s is not None:
            self.samples.add("callers: first audio s", first_audio_s)

    async def _http(self, rng: random.Random, _: int) -> None:
        async with httpx.AsyncClient(timeout=60.0, trust_env=False) as http:
            if rng.random() < HANGS_UP:
                await self.graph.ask(http, leave=lambda heard: heard.pieces >= 2, seed=rng.getrandbits(31))
                self._count("HTTP, hung up")
                return
            heard = await hear(http, self.graph, Asked(rng.getrandbits(31), rng.choice((0.0, 0.9)), self.reply_s))
            if heard.error and heard.error.startswith("HTTP 429"):
                self._count("HTTP, refused")
                return
            if heard.error or not heard.finish:
                raise RuntimeError(heard.error or "no end")
            self._count("HTTP", heard.playback.first_audio_s)
            await asyncio.sleep(max(0.0, heard.playback.silent_from - time.monotonic()))

    async def _live(self, rng: random.Random, number: int) -> None:
        question = recording(QUESTION)
        async with aiohttp.ClientSession() as client:
            url = self.graph.url.replace("http", "ws")
            async with LiveSession(client, url, number, self.owners, PIECE_S) as session:
                await session.configure(self.reply_s)
                reply = await session.ask(question)
                await session.played(reply)
                self._count("WebSocket", reply.first_audio_s)
                await session.configure(LONG_S)
                cut = await session.ask(question)
                await session.played(cut, PLAYED_S)
                answer = await session.interrupt(cut, question)
                await session.played(answer, PLAYED_S)
                await session.cancel(answer)
                self._count("WebSocket, interrupted by voice")
                self._count("WebSocket, cancelled")
            self.faults += session.faults + session.order.faults
            for replied in session.replies:
                self.owners.pop(replied.id, None)

    async def _grpc(self, rng: random.Random, _: int) -> None:
        async with grpc.aio.insecure_channel(self.graph.grpc) as channel:
            talk = await Talk.open(SpeechServiceStub(channel), max_reply=Duration(seconds=round(self.reply_s)))
            asked = time.monotonic()
            await talk.say("Tell me about the sea.")
            await talk.one("response_delta")
            self._count("gRPC", time.monotonic() - asked)
            if rng.random() < HANGS_UP:
                talk.call.cancel()
                await asyncio.gather(talk.listening, return_exceptions=True)
                self._count("gRPC, hung up")
                return
            await talk.one("response_done")
            await talk.end()
