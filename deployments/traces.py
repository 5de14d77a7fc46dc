"""Spans of turns for a collector of OpenTelemetry: of the reply, of each stage's part, of its first frame's decoding.

Serve's own tracing makes a span of every call between replicas, a Decoder's batch each 80 ms among them, and knows
neither turns nor what they ended with.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from typing import TypeVar

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from chroma_models.engine.decoder_engine import DecoderBatch
from chroma_models.errors import ChromaError
from chroma_models.types import Admitted, Finished, Progress, Turn
from deployments.ingress.reply_span import HEADER, NAME, W3C, Value, within
from deployments.metrics import speaks
from deployments.settings import Traces

T = TypeVar("T")

EXPORT_EVERY_S = 2.0
EXPORT_TIMEOUT_S = 5.0


def configure(traces: Traces, stage: str) -> None:
    """For this process. A collector that does not answer costs spans, and nothing else."""
    if traces.endpoint is None:
        return
    shared = TraceIdRatioBased(traces.share)  # by the trace's id: a caller's flag asks for no more than our share
    provider = TracerProvider(
        sampler=ParentBased(root=shared, remote_parent_sampled=shared),
        resource=Resource.create({"service.name": NAME, "chroma.stage": stage}),
    )
    exporter = OTLPSpanExporter(f"{str(traces.endpoint).rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000 * EXPORT_EVERY_S))
    trace.set_tracer_provider(provider)


def traced(
    stage: str,
    turn: Turn,
    progress: Progress | None,
    open_stream: Callable[[Turn], AsyncGenerator[T, None]],
    waits: "FirstFrames | None" = None,
) -> AsyncGenerator[T, None]:
    """A turn's stream through one stage. open_stream is given the turn as the stages behind are to see it.

    waits  is told of the turn until its first frame has come
    """
    return _traced(stage, turn, progress, open_stream, waits) if turn.trace else open_stream(turn)


async def _traced(
    stage: str,
    turn: Turn,
    progress: Progress | None,
    open_stream: Callable[[Turn], AsyncGenerator[T, None]],
    waits: "FirstFrames | None",
) -> AsyncGenerator[T, None]:
    about: dict[str, Value] = {
        "chroma.turn_id": turn.id,
        "chroma.losses": turn.losses,
        "chroma.resumed_frames": len(progress.frames) if progress else 0,
    }
    span = _tracer().start_span(stage, _context(turn.trace), SpanKind.SERVER, about)
    with ExitStack() as ends:
        ends.callback(span.end)
        turn = within(span, turn)
        waiting = ends.enter_context(waits.wait(turn)) if waits is not None and progress is None else None
        try:
            silent = True
            async with aclosing(open_stream(turn)) as items:
                async for item in items:
                    if isinstance(item, Admitted):
                        span.add_event("admitted", {"losses": item.losses})
                    elif isinstance(item, Finished):
                        _finish(span, item)
                    elif silent and speaks(item):
                        silent = False
                        span.add_event("first item")
                        if waiting is not None:
                            waiting.close()
                    yield item
        except ChromaError as error:
            span.set_status(Status(StatusCode.ERROR, error.code))
            raise
        except Exception as error:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, "internal_error"))
            raise


def _finish(span: Span, finished: Finished) -> None:
    usage = finished.usage
    span.set_attributes(
        {
            "chroma.finish": finished.reason,
            "chroma.prompt_tokens": usage.prompt_tokens,
            "chroma.text_tokens": usage.text_tokens,
            "chroma.frames": usage.frames,
            **{f"chroma.timing.{name}_s": seconds for name, seconds in finished.timing.items()},
        }
    )


class FirstFrames:
    """Turns that wait for their first frame, by the seed they draw with: a batch of the Decoder says no more of its
    rows. Two turns that begin at once with one seed share the spans of either.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, str] = {}

    @contextmanager
    def wait(self, turn: Turn) -> Iterator[ExitStack]:
        """What it yields may be closed before the block ends."""
        with ExitStack() as ends:
            self._waiting[turn.sampling.seed] = turn.trace
            ends.callback(self._waiting.pop, turn.sampling.seed, None)
            yield ends

    def of(self, batch: DecoderBatch) -> tuple[str, ...]:
        """What the spans of its first frames belong to."""
        if not self._waiting:
            return ()
        first = np.frombuffer(batch.indices, np.int64) == 0
        seeds = np.frombuffer(batch.seeds, np.int64)[first].tolist()
        return tuple(self._waiting[seed] for seed in seeds if seed in self._waiting)


@contextmanager
def decoding(traces: tuple[str, ...], rows: int) -> Iterator[None]:
    """A batch that makes the first frame of some turns."""
    spans = [_tracer().start_span("decoder", _context(one), SpanKind.SERVER, {"chroma.rows": rows}) for one in traces]
    try:
        yield
    finally:
        for span in spans:
            span.end()


def _tracer() -> trace.Tracer:
    return trace.get_tracer(NAME)


def _context(traceparent: str) -> Context:
    return W3C.extract({HEADER: traceparent})
