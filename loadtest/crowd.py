"""Many listeners at once: each asks, hears the reply out at the pace of speech, and asks again."""

import asyncio
import random
import time
from dataclasses import dataclass

import httpx

from loadtest.listener import Heard, Question, ask

BEAT_S = 0.01


@dataclass(frozen=True)
class Crowd:
    """How many listen, how long each reply may be, and how many replies each hears. They join evenly over one reply."""

    listeners: int
    reply_s: float
    turns: int
    seed: int = 0

    async def listen(self, url: str, question: Question) -> tuple[list[Heard], float]:
        """All that was heard, and the longest this process itself was late, which is none of the server's doing."""
        rng = random.Random(self.seed)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        late = Lateness()
        async with httpx.AsyncClient(timeout=60.0, limits=limits) as client:
            beating = asyncio.create_task(late.beat())
            heard = await asyncio.gather(
                *(self._one(client, url, question, i, random.Random(rng.random())) for i in range(self.listeners))
            )
            beating.cancel()
        return [turn for turns in heard for turn in turns], late.longest_s

    async def _one(
        self, client: httpx.AsyncClient, url: str, question: Question, number: int, rng: random.Random
    ) -> list[Heard]:
        await asyncio.sleep(self.reply_s * number / self.listeners)
        heard = []
        for _ in range(self.turns):
            turn = await ask(client, url, question.varied(rng), rng.getrandbits(31), self.reply_s)
            heard.append(turn)
            await asyncio.sleep(turn.playback.silent_from - time.monotonic() if turn.error is None else 1.0)
        return heard


class Lateness:
    longest_s = 0.0

    async def beat(self) -> None:
        while True:
            due = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.longest_s = max(self.longest_s, time.monotonic() - due)
