"""The span of a reply, which the spans of its turn's stages belong to. Without a collector it records nothing."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chroma_models.types import Turn

TRACEPARENT = "traceparent"  # the header, and the key of metadata
NAME = "chroma-serve"  # of the tracer, here and in the stages
W3C = TraceContextTextMapPropagator()
PARENT: ContextVar[str] = ContextVar("traceparent", default="")  # the caller's, where a request is let in

Value = str | int | float | bool


def begin(name: str, parent: str, attributes: Mapping[str, Value]) -> Span:
    """Part of the trace that parent, a traceparent, names; or the first span of its own, where it names none."""
    context = W3C.extract({TRACEPARENT: parent})
    return trace.get_tracer(NAME).start_span(name, context, SpanKind.SERVER, dict(attributes))


def end(span: Span, fault: str | None, attributes: Mapping[str, Value | None]) -> None:
    """fault: the code of what the server owes an answer for. Values that are None are left out."""
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
    if fault is not None:
        span.set_status(Status(StatusCode.ERROR, fault))
    span.end()


def within(span: Span, turn: Turn) -> Turn:
    """The turn, told what its spans belong to; as it is, where nobody traces it."""
    if not span.get_span_context().trace_flags.sampled:
        return turn
    carrier: dict[str, str] = {}
    W3C.inject(carrier, trace.set_span_in_context(span))
    return replace(turn, trace=carrier[TRACEPARENT])
