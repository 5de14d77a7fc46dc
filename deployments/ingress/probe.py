"""A standing turn of the replica's own, from one end of the graph to the other, as a listener would have it."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing

from chroma_models.errors import ChromaError, StageUnavailable
from chroma_models.types import AudioChunk, EncodedVoice, FairShare, Limits, Message, Sampling, Text, Turn
from deployments.ingress.health import Probed
from deployments.ingress.services import Services
from deployments.ingress.speaker import Speaker

log = logging.getLogger(__name__)

OK = "ok"
PROBE_S = 0.5  # of speech


def own_turn(voice: EncodedVoice, name: str) -> Turn:
    """A short turn that no client asked for."""
    return Turn(
        id=f"{name}-{secrets.token_hex(4)}",
        affinity=name,
        messages=(Message("user", (Text("Hello."),)),),
        voice=voice,
        sampling=Sampling(seed=0),
        limits=Limits(max_reply_s=PROBE_S, max_text_tokens=8),
        share=FairShare(name),
    )


async def first_audio_s(speaker: Speaker, turn: Turn) -> float:
    """Seconds to the turn's first audio, once it has come to its end. Raises what it raises, and StageUnavailable where
    it brings none."""
    began, heard = time.monotonic(), None
    async with aclosing(speaker.speak(turn)) as items:
        async for item in items:
            if heard is None and isinstance(item, AudioChunk) and item.pcm:
                heard = time.monotonic() - began
    if heard is None:
        raise StageUnavailable("A turn of our own brought no audio.")
    return heard


class Probe:
    """Asks every probe_interval_s while the replica takes turns, one turn at a time. told: called with each result."""

    def __init__(self, services: Services, told: Callable[[Probed], None]) -> None:
        self._services, self._told = services, told

    async def run(self) -> None:
        """Until it is cancelled."""
        while not self._services.health.draining:
            await asyncio.sleep(self._services.config.probe_interval_s)
            self._services.health.probed = probed = await self.ask()
            self._told(probed)

    async def ask(self) -> Probed:
        services, heard_s, outcome = self._services, None, OK
        try:
            turn = own_turn(await services.voices.built_in(), "probe")
            async with asyncio.timeout(services.config.first_audio_timeout_s):
                heard_s = await first_audio_s(services.speaker, turn)
        except TimeoutError:
            outcome = "turn_timeout"
        except ChromaError as error:
            outcome = error.code
        except Exception:
            log.exception("a probe failed")
            outcome = ChromaError.code
        return Probed(outcome, None if heard_s is None else round(heard_s, 4), time.time())
