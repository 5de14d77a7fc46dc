"""People who ask questions whose answers are known, and compare code for code."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from loadtest.listener import Heard as Listened
from loadtest.listener import events_of, take
from loadtest.playback import Playback
from tests.deployments.graph import Graph

SEEDS = 6  # of questions; each is asked again and again
TEMPERATURES = (0.0, 0.9)
SLOW_REPLY_S, SLOW_STOPS_S = 14.0, 8.0  # more than the kernel and the ingress hold together, and for longer
CROWD_REPLY_S = 1.0
REFUSED = "HTTP 429:", '"code":"overloaded"'


@dataclass(frozen=True)
class Asked:
    """One of the questions."""

    seed: int
    temperature: float
    reply_s: float

    @property
    def changes(self) -> dict[str, Any]:
        more = {"max_reply_s": self.reply_s, "codes": True, "text_temperature": self.temperature}
        return {"seed": self.seed, "temperature": self.temperature, "chroma": more}


def questions(reply_s: float) -> list[Asked]:
    return [Asked(seed, temperature, reply_s) for seed in range(SEEDS) for temperature in TEMPERATURES]


@dataclass
class Audience:
    """What all of them heard."""

    turns: int = 0
    running: dict[object, float] = field(default_factory=dict)  # since when, for each turn
    errors: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)  # by turn
    crowds: int = 0  # about just now
    refused: int = 0  # typed, while there were more than slots
    underruns: int = 0
    longest_pause_s: float = 0.0
    most_silence_s: float = 0.0  # of one turn, all its pauses together
    first_audio_s: list[float] = field(default_factory=list)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One of them, while the block runs."""
        mark = object()
        self.running[mark] = time.monotonic()
        try:
            yield
        finally:
            del self.running[mark]

    async def ended_that_began_before(self, moment: float) -> None:
        """Returns when every turn that began before then has ended."""
        while any(began < moment for began in self.running.values()):
            await asyncio.sleep(0.05)

    def take(self, asked: Asked, heard: Listened, wanted: str) -> None:
        if self.crowds and heard.error and all(word in heard.error for word in REFUSED):
            self.refused += 1
            return
        self.turns += 1
        if heard.error or not heard.finish:
            self.errors.append(f"{asked}: {heard.error or 'no end'}")
            print(f"  a turn is lost: {self.errors[-1]}", flush=True)
            return
        self.losses.append(int(heard.server["losses"]))
        self.underruns += heard.playback.underruns
        self.longest_pause_s = max(self.longest_pause_s, heard.playback.longest_underrun_s)
        self.most_silence_s = max(self.most_silence_s, heard.playback.underrun_s)
        if heard.playback.first_audio_s is not None:
            self.first_audio_s.append(heard.playback.first_audio_s)
        if heard.server["codes"] != wanted:
            one, other = (np.frombuffer(codes.encode(), np.uint8) for codes in (heard.server["codes"], wanted))
            same = min(len(one), len(other))
            first = int(np.argmax(one[:same] != other[:same])) if (one[:same] != other[:same]).any() else same
            self.different.append(f"{asked}: differs from byte {first} of {len(other)}, {self.losses[-1]} losses")


async def hear(http: httpx.AsyncClient, graph: Graph, asked: Asked, stops_s: float = 0.0) -> Listened:
    """stops_s: after the first audio nothing is read for so long."""
    heard = Listened(Playback(time.monotonic()))
    try:
        async with http.stream("POST", f"{graph.url}/v1/chat/completions", json=graph.body(**asked.changes)) as answer:
            if answer.status_code != 200:
                heard.error = f"HTTP {answer.status_code}: {(await answer.aread())[:300]!r}"
                return heard
            async for event in events_of(answer):
                take(heard, event)
                if heard.pieces and stops_s:
                    await asyncio.sleep(stops_s)
                    stops_s = 0.0
    except httpx.HTTPError as error:
        heard.error = f"{type(error).__name__}: {error}"
    return heard


async def oracle(http: httpx.AsyncClient, graph: Graph, asked: list[Asked]) -> dict[Asked, str]:
    """The codes that an undisturbed cluster answers each question with."""
    told = {}
    for one in asked:
        heard = await hear(http, graph, one)
        assert heard.error is None, heard.error
        told[one] = str(heard.server["codes"])
    return told


async def listen(
    http: httpx.AsyncClient, graph: Graph, number: int, known: dict[Asked, str], audience: Audience, over: asyncio.Event
) -> None:
    """One of them, asking until it is over; the turn under way is heard out."""
    mine, turn = list(known.items()), number
    while not over.is_set():
        asked, wanted = mine[turn % len(mine)]
        turn += 1
        with audience.turn():
            heard = await hear(http, graph, asked)
        audience.take(asked, heard, wanted)
        pause_s = heard.playback.silent_from - time.monotonic() if heard.error is None else 1.0
        await asyncio.sleep(max(0.0, pause_s))  # it is heard out, at the pace of speech


async def listen_slowly(
    http: httpx.AsyncClient, graph: Graph, known: dict[Asked, str], audience: Audience, asked: Asked
) -> None:
    """One more, who stops reading for so long that the stages behind are let go, and then hears the rest."""
    with audience.turn():
        heard = await hear(http, graph, asked, SLOW_STOPS_S)
    heard.playback = Playback(time.monotonic())  # its silence is its own
    audience.take(asked, heard, known[asked])


async def crowd(
    http: httpx.AsyncClient, graph: Graph, known: dict[Asked, str], audience: Audience, asked: Asked, size: int
) -> None:
    """So many at once that all slots are taken: each is heard, or refused with a type before it has begun."""
    audience.crowds += 1
    try:
        with audience.turn():
            everybody = await asyncio.gather(*(hear(http, graph, asked) for _ in range(size)))
        for heard in everybody:
            heard.playback = Playback(time.monotonic())
            audience.take(asked, heard, known[asked])
    finally:
        audience.crowds -= 1
