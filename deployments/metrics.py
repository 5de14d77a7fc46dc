"""What each stage tells Prometheus, through Ray: turns by outcome, slots, steps, rows, and the times users feel."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from ray.serve import metrics

from chroma_models.errors import ChromaError
from chroma_models.types import Admitted, Finished

T = TypeVar("T")
PERIOD_S = 2.0
_SECONDS = [0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0]


class StageMetrics:
    """Samples an engine's plain counters every PERIOD_S, and times the turns that pass through turn().

    slots_held  reads the slots that turns hold now, where the stage has slots
    totals      by name, what reads a count that only grows: {"steps": ...} becomes chroma_steps_total
    """

    def __init__(self, stage: str, slots_held: Callable[[], int] | None = None, **totals: Callable[[], float]) -> None:
        tags = {"stage": stage}

        def tagged(metric: Any) -> Any:
            metric.set_default_tags(dict(tags))  # Ray adds its own to the mapping it is given
            return metric

        self._slots_held, self._totals = slots_held, totals
        self._slots = tagged(metrics.Gauge("chroma_slots_held", tag_keys=("stage",)))
        self._counters = {n: tagged(metrics.Counter(f"chroma_{n}_total", tag_keys=("stage",))) for n in totals}
        self._seen = dict.fromkeys(totals, 0.0)
        self._turns = tagged(metrics.Counter("chroma_turns_total", tag_keys=("stage", "outcome")))
        self._admit = tagged(metrics.Histogram("chroma_admit_seconds", boundaries=_SECONDS, tag_keys=("stage",)))
        self._first = tagged(metrics.Histogram("chroma_first_item_seconds", boundaries=_SECONDS, tag_keys=("stage",)))
        self.running = 0
        self._task = asyncio.create_task(self._sample(), name=f"metrics-{stage}")

    async def _sample(self) -> None:
        while True:
            if self._slots_held is not None:
                self._slots.set(self._slots_held())
            for name, read in self._totals.items():
                value = float(read())
                if value > self._seen[name]:
                    self._counters[name].inc(value - self._seen[name])
                    self._seen[name] = value
            await asyncio.sleep(PERIOD_S)

    def state(self) -> dict[str, Any]:
        """The same numbers for a caller in this cluster, with the turns and tasks that are alive."""
        held = {} if self._slots_held is None else {"slots_held": self._slots_held()}
        counts = {name: float(read()) for name, read in self._totals.items()}
        return {**held, **counts, "turns_running": self.running, "tasks": len(asyncio.all_tasks()), "pid": os.getpid()}

    async def turn(self, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Pass a turn's stream through, counting its outcome and timing its admission and first item."""
        started = time.monotonic()
        outcome, waiting, admitted = "cancelled", True, False
        self.running += 1
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    if isinstance(item, Admitted) and not admitted:
                        admitted = True
                        self._admit.observe(time.monotonic() - started)
                    elif isinstance(item, Finished):
                        outcome = item.reason
                    elif waiting and _speaks(item):
                        waiting = False
                        self._first.observe(time.monotonic() - started)
                    yield item
        except ChromaError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = "internal_error"
            raise
        finally:
            self.running -= 1
            self._turns.inc(1, {"outcome": outcome})


def _speaks(item: object) -> bool:
    """A keep-alive is an empty list, or a chunk without frames."""
    return bool(getattr(item, "frames", item))
