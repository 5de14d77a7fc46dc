"""What each stage tells Prometheus, through Ray: turns by outcome, slots, steps, rows, and the times users feel.

Seconds and counts, never milliseconds; a label has a bounded number of values. Bounds of seconds lie close together
around the 80 ms of a frame. Ray knows a histogram's sum by the middles of its buckets alone: where a sum matters, a
counter says it.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from opentelemetry.trace import INVALID_SPAN, Span
from ray.serve import metrics

from chroma_models.engine.step_log import StepLog
from chroma_models.errors import ChromaError
from chroma_models.types import Admitted, Finished
from deployments.traces import fail, finish

T = TypeVar("T")
PERIOD_S = 2.0
STEP_BOUNDS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.32, 1.0, 3.0]
WAIT_BOUNDS_S = [0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.2, 0.24, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0]
ROW_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


@dataclass(frozen=True)
class Slots:
    """held: by turns now. most: how many new turns there is room for."""

    held: Callable[[], int]
    most: Callable[[], int]


def begin_at_zero(counter: metrics.Counter, tags: dict[str, str]) -> None:
    """A counter that is there before anything is counted: a rate sees its first step, too."""
    counter._record(0.0, tags)  # inc() refuses a zero


class StageMetrics:
    """Samples an engine's plain counters every PERIOD_S, and times the turns that pass through turn().

    placement  of the Decoder, in the whole graph: split or fused
    ran        the steps of the stage's engine
    audio_s    seconds of reply that these steps were worth
    totals     by name, what reads a count that only grows: {"voices": ...} becomes chroma_voices_total
    """

    def __init__(
        self,
        stage: str,
        placement: str,
        slots: Slots | None = None,
        ran: StepLog | None = None,
        audio_s: Callable[[], float] | None = None,
        **totals: Callable[[], float],
    ) -> None:
        tags = {"stage": stage, "placement": placement}

        def tagged(metric: Any) -> Any:
            metric.set_default_tags(dict(tags))  # Ray adds its own to the mapping it is given
            return metric

        def gauge(name: str, about: str) -> Any:
            return tagged(metrics.Gauge(f"chroma_{name}", about, ("stage", "placement")))

        def counter(name: str, about: str, *more: str) -> Any:
            return tagged(metrics.Counter(f"chroma_{name}_total", about, ("stage", "placement", *more)))

        def histogram(name: str, about: str, bounds: list[float]) -> Any:
            return tagged(metrics.Histogram(f"chroma_{name}", about, bounds, ("stage", "placement")))

        self._slots, self._ran = slots, ran
        self._totals = dict(totals)
        if ran is not None:
            self._totals |= {"steps": lambda: ran.steps, "rows": lambda: ran.rows, "busy_seconds": lambda: ran.busy_s}
            self._step = histogram("step_seconds", "Of one step, for all its rows.", STEP_BOUNDS_S)
            self._batch = histogram("step_rows", "That share a step.", [float(rows) for rows in ROW_BOUNDS])
        if audio_s is not None:
            self._totals["audio_seconds"] = audio_s
        if slots is not None:
            self._held = gauge("slots_held", "By turns, now.")
            self._most = gauge("slots", "That new turns may hold.")
        self._running = gauge("turns_running", "Streams that are open.")
        self._counters = {n: counter(n, "Since the replica began.") for n in self._totals}
        self._seen = dict.fromkeys(self._totals, 0.0)
        self._steps_seen = 0
        self._turns = counter("turns", "By how they ended.", "outcome")
        self._admit = histogram("admit_wait_seconds", "Until a turn was admitted.", WAIT_BOUNDS_S)
        self._first = histogram("first_item_seconds", "Until the stage gave something out.", WAIT_BOUNDS_S)
        self.running = 0
        self._task = asyncio.create_task(self._run(), name=f"metrics-{stage}")

    async def _run(self) -> None:
        while True:
            self.sample()
            await asyncio.sleep(PERIOD_S)

    def sample(self) -> None:
        """What has changed since the last time."""
        if self._slots is not None:
            self._held.set(self._slots.held())
            self._most.set(self._slots.most())
        self._running.set(self.running)
        if self._ran is not None:
            last = self._ran.steps
            steps = self._ran.since(self._steps_seen, last)
            self._steps_seen = last
            for seconds, rows in steps:
                self._step.observe(seconds)
                self._batch.observe(rows)
        for name, read in self._totals.items():
            value = float(read())
            if value > self._seen[name]:
                self._counters[name].inc(value - self._seen[name])
                self._seen[name] = value

    def state(self) -> dict[str, Any]:
        """The same numbers for a caller in this cluster, with the turns and tasks that are alive."""
        held = {} if self._slots is None else {"slots_held": self._slots.held()}
        counts = {name: float(read()) for name, read in self._totals.items()}
        return {**held, **counts, "turns_running": self.running, "tasks": len(asyncio.all_tasks()), "pid": os.getpid()}

    async def turn(self, stream: AsyncGenerator[T, None], span: Span = INVALID_SPAN) -> AsyncGenerator[T, None]:
        """Pass a turn's stream through, counting its outcome and timing its admission and first item; span, too, is
        told of them.
        """
        started = time.monotonic()
        outcome, waiting, admitted = "cancelled", True, False
        self.running += 1
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    if isinstance(item, Admitted):
                        if not admitted:
                            admitted = True
                            self._admit.observe(time.monotonic() - started)
                        span.add_event("admitted", {"losses": item.losses})
                    elif isinstance(item, Finished):
                        outcome = item.reason
                        finish(span, item)
                    elif waiting and _speaks(item):
                        waiting = False
                        self._first.observe(time.monotonic() - started)
                        span.add_event("first item")
                    yield item
        except ChromaError as error:
            outcome = error.code
            fail(span, error, outcome)
            raise
        except Exception as error:
            outcome = "internal_error"
            fail(span, error, outcome)
            raise
        finally:
            self.running -= 1
            self._turns.inc(1, {"outcome": outcome})


def _speaks(item: object) -> bool:
    """A keep-alive is an empty list, or a chunk without frames."""
    return bool(getattr(item, "frames", item))
