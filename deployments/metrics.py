"""What each stage tells Prometheus, through Ray: turns by outcome, slots, steps, rows, and the times users feel."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from ray.serve import metrics

from chroma_models.errors import ChromaError
from chroma_models.types import Admitted, Finished

T = TypeVar("T")
PERIOD_S = 2.0
_GAUGES = {"slots_held": "chroma_slots_held"}
_TOTALS = {
    "steps": "chroma_steps_total",
    "step_rows": "chroma_step_rows_total",
    "step_s": "chroma_step_seconds_total",
    "prefill_positions": "chroma_prefill_positions_total",
    "batches": "chroma_batches_total",
    "rows": "chroma_batch_rows_total",
}
_SECONDS = [0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0]


class StageMetrics:
    """Samples an engine's plain counters every PERIOD_S, and times the turns that pass through turn()."""

    def __init__(self, stage: str, engine: object, names: Mapping[str, str] | None = None) -> None:
        self._engine = engine
        self._names = names or {}
        tags = {"stage": stage}

        def tagged(metric: Any) -> Any:
            metric.set_default_tags(dict(tags))  # Ray adds its own to the mapping it is given
            return metric

        self._gauges = {k: tagged(metrics.Gauge(v, tag_keys=("stage",))) for k, v in _GAUGES.items() if self._has(k)}
        self._totals = {k: tagged(metrics.Counter(v, tag_keys=("stage",))) for k, v in _TOTALS.items() if self._has(k)}
        self._seen = dict.fromkeys(self._totals, 0.0)
        self._turns = tagged(metrics.Counter("chroma_turns_total", tag_keys=("stage", "outcome")))
        self._admit = tagged(metrics.Histogram("chroma_admit_seconds", boundaries=_SECONDS, tag_keys=("stage",)))
        self._first = tagged(metrics.Histogram("chroma_first_item_seconds", boundaries=_SECONDS, tag_keys=("stage",)))
        self.running = 0
        self._task = asyncio.create_task(self._sample(), name=f"metrics-{stage}")

    def _value(self, key: str) -> Any:
        return getattr(self._engine, self._names.get(key, key), None)

    def _has(self, key: str) -> bool:
        return self._value(key) is not None

    async def _sample(self) -> None:
        while True:
            for key, gauge in self._gauges.items():
                gauge.set(self._value(key))
            for key, counter in self._totals.items():
                value = float(self._value(key))
                if value > self._seen[key]:
                    counter.inc(value - self._seen[key])
                    self._seen[key] = value
            await asyncio.sleep(PERIOD_S)

    def state(self) -> dict[str, Any]:
        """The same numbers for a caller in this cluster, with tasks and turns that are alive."""
        values = {key: self._value(key) for key in (*_GAUGES, *_TOTALS) if self._has(key)}
        return {**values, "turns_running": self.running, "tasks": len(asyncio.all_tasks())}

    async def turn(self, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Pass a turn's stream through, counting its outcome and timing its admission and first item."""
        started = time.monotonic()
        outcome, waiting = "cancelled", True
        self.running += 1
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    if isinstance(item, Admitted):
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
