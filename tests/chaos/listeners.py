"""People who ask questions whose answers are known, and compare code for code."""

import asyncio
import time
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
    running: dict[int, float] = field(default_factory=dict)  # by listener: since when a turn of theirs runs
    errors: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)  # by turn
    underruns: int = 0
    longest_pause_s: float = 0.0
    most_silence_s: float = 0.0  # of one turn, all its pauses together
    first_audio_s: list[float] = field(default_factory=list)

    async def ended_that_began_before(self, moment: float) -> None:
        """Returns when every turn that began before then has ended."""
        while any(began < moment for began in self.running.values()):
            await asyncio.sleep(0.05)

    def take(self, asked: Asked, heard: Listened, wanted: str) -> None:
        self.turns += 1
        if heard.error or not heard.finish:
            self.errors.append(f"{asked}: {heard.error or 'no end'}")
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


async def hear(http: httpx.AsyncClient, graph: Graph, asked: Asked) -> Listened:
    heard = Listened(Playback(time.monotonic()))
    try:
        async with http.stream("POST", f"{graph.url}/v1/chat/completions", json=graph.body(**asked.changes)) as answer:
            if answer.status_code != 200:
                heard.error = f"HTTP {answer.status_code}: {(await answer.aread())[:300]!r}"
                return heard
            async for event in events_of(answer):
                take(heard, event)
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
        audience.running[number] = time.monotonic()
        heard = await hear(http, graph, asked)
        del audience.running[number]
        audience.take(asked, heard, wanted)
        pause_s = heard.playback.silent_from - time.monotonic() if heard.error is None else 1.0
        await asyncio.sleep(max(0.0, pause_s))  # it is heard out, at the pace of speech
