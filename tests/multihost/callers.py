"""People outside of the cluster, who ask through the Service and compare every code with what they should hear."""

import asyncio
import time
from dataclasses import dataclass, field

import httpx

from tests.chaos.listeners import Asked, hear
from tests.deployments.graph import Graph
from tests.multihost.service import Service

AGAIN_S = 0.5  # after a refusal, or a connection that broke, until a client asks again


@dataclass(frozen=True)
class Turn:
    """What became of one question."""

    pod: str
    began: float  # on the monotonic clock
    ended: float
    outcome: str  # completed, refused, unreachable (nobody listened there), cut (the connection broke), failed
    why: str = ""
    losses: int = 0  # replicas that it outlived
    same: bool = True  # the codes are those of an undisturbed cluster
    underruns: int = 0
    longest_pause_s: float = 0.0
    first_audio_s: float | None = None

    def overlaps(self, since: float, until: float) -> bool:
        return self.began < until and self.ended > since


@dataclass
class Crowd:
    """All of them."""

    service: Service
    http: httpx.AsyncClient
    known: dict[Asked, str]
    turns: list[Turn] = field(default_factory=list)
    running: dict[int, tuple[str, float]] = field(default_factory=dict)  # by caller: the pod, and since when
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, number: int) -> None:
        """One of them, asking until it is over. A question that was cut off is asked again."""
        mine, count = list(self.known.items()), number
        while not self.over.is_set():
            asked, wanted = mine[count % len(mine)]
            turn, silent_from = await self._ask(number, asked, wanted)
            self.turns.append(turn)
            if turn.outcome != "completed":
                await asyncio.sleep(AGAIN_S)
                continue
            count += 1
            await asyncio.sleep(max(0.0, silent_from - time.monotonic()))  # it is heard out, at the pace of speech

    async def _ask(self, number: int, asked: Asked, wanted: str) -> tuple[Turn, float]:
        pod, url = await self.service.pod()
        began = time.monotonic()
        self.running[number] = (pod, began)
        try:
            heard = await hear(self.http, Graph(pod, url, "", ()), asked)
        finally:
            del self.running[number]
        play, error = heard.playback, heard.error or ("" if heard.finish else "no end")
        turn = Turn(
            pod,
            began,
            time.monotonic(),
            outcome(error),
            error,
            0 if error else int(heard.server["losses"]),
            bool(error) or heard.server["codes"] == wanted,
            play.underruns,
            play.longest_underrun_s,
            play.first_audio_s,
        )
        return turn, play.silent_from

    async def ended_that_began_before(self, moment: float) -> None:
        while any(began < moment for _, began in self.running.values()):
            await asyncio.sleep(0.05)


def outcome(error: str) -> str:
    """In a word what a caller saw."""
    if not error:
        return "completed"
    if error.startswith(("HTTP 429", "HTTP 503")):
        return "refused"
    if error.startswith(("ConnectError", "ConnectTimeout")):
        return "unreachable"
    return "cut" if error.startswith(("Read", "RemoteProtocol", "Write", "no end")) else "failed"
