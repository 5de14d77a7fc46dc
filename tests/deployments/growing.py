"""A deployment as a stage is to the autoscaler, without a model: slots that calls hold, and turns that are refused."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from chroma_models.errors import Overloaded
from chroma_models.types import Admitted, EncodedVoice, Sampling, Turn
from deployments.autoscaling.feelings import Feelings

TURN = Turn("t", "a", (), EncodedVoice("", b"", ""), Sampling(0))


class Small:
    """Room for one call."""

    def __init__(self) -> None:
        self._held = 0
        self._feelings = Feelings(8, lambda: self._held)

    async def hold(self, seconds: float) -> bool:
        """False where it is refused."""
        try:
            async for _ in self._feelings.turn(TURN, self._stream(seconds)):
                pass
        except Overloaded:
            return False
        return True

    async def held(self) -> int:
        """Calls that it holds now."""
        return self._held

    async def _stream(self, seconds: float) -> AsyncGenerator[Any, None]:
        if self._held:
            raise Overloaded("There is room for one.", 1.0)
        self._held += 1
        try:
            yield Admitted("")
            await asyncio.sleep(seconds)
        finally:
            self._held -= 1

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return self._feelings.told()
