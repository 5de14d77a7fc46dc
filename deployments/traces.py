"""Spans of turns for a collector of OpenTelemetry: of the reply, of each stage's part, of its first frame's decoding.

Serve's own tracing makes a span of every call between replicas, a Decoder's batch each 80 ms among them, and knows
neither turns nor what they ended with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode

from chroma_models.engine.decoder_engine import DecoderBatch
from chroma_models.errors import ChromaError
from chroma_models.types import Finished, Progress, Turn
from deployments.ingress.reply_span import NAME, Value, begin, within
from deployments.settings import Traces

EXPORT_EVERY_S = 2.0
EXPORT_TIMEOUT_S = 5.0


def export_traces(traces: Traces, stage: str) -> None:
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


@contextmanager
def staged(stage: str, turn: Turn, progress: Progress | None = None) -> Iterator[tuple[Turn, Span]]:
    """A stage's part of a turn while the block runs: the turn as the stages behind are to see it, and the span."""
    if not turn.trace:
        yield turn, INVALID_SPAN
        return
    about: dict[str, Value] = {
        "chroma.turn_id": turn.id,
        "chroma.losses": turn.losses,
        "chroma.resumed_frames": len(progress.frames) if progress else 0,
    }
    span = begin(stage, turn.trace, about)
    try:
        yield within(span, turn), span
    finally:
        span.end()


def finish(span: Span, finished: Finished) -> None:
    """What a stream's last item says."""
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


def fail(span: Span, error: Exception, code: str) -> None:
    """What ended a stream instead. The words of a typed error are the client's, and its code says enough."""
    if not isinstance(error, ChromaError):
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, code))


class FirstFrames:
    """Of which traced turns a batch of the Decoder makes the first frames. It says no more of its rows than the seeds
    they draw with: two turns that begin at once with one seed share the spans of either.
    """

    def __init__(self) -> None:
        self._traces: dict[int, str] = {}  # of turns that run, by seed

    @contextmanager
    def of(self, turn: Turn) -> Iterator[None]:
        """A turn, while the block runs."""
        seed = turn.sampling.seed
        if turn.trace:
            self._traces[seed] = turn.trace
        try:
            yield
        finally:
            if turn.trace and self._traces.get(seed) == turn.trace:
                del self._traces[seed]

    def traces(self, batch: DecoderBatch) -> tuple[str, ...]:
        """What the spans of its first frames belong to."""
        if not self._traces:
            return ()
        first = np.frombuffer(batch.indices, np.int64) == 0
        seeds = np.frombuffer(batch.seeds, np.int64)[first].tolist()
        return tuple(self._traces[seed] for seed in seeds if seed in self._traces)


@contextmanager
def decoding(traces: tuple[str, ...], rows: int) -> Iterator[None]:
    """A batch that makes the first frame of some turns."""
    spans = [begin("decoder", one, {"chroma.rows": rows}) for one in traces]
    try:
        yield
    finally:
        for span in spans:
            span.end()
