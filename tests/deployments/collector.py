"""What stands at the edge of the process instead of an OpenTelemetry collector: it keeps the spans it is sent."""

import asyncio
import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

WITHIN_S = 20.0  # more than the processes keep spans to themselves


@dataclass(frozen=True)
class Span:
    """One of them. Times are Unix nanoseconds."""

    stage: str
    name: str
    trace: str
    id: str
    parent: str
    began_ns: int
    ended_ns: int
    fault: str
    attributes: dict[str, Any]
    events: tuple[str, ...]


class Collector:
    """Listens on the loopback while the block runs."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: it is not what is tested."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    async def trace(self, trace: str, whole: Callable[[list[Span]], bool]) -> list[Span]:
        """Its spans, earliest first, once they are whole. Fails when that takes too long."""
        for _ in range(int(WITHIN_S / 0.1)):
            found = sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.began_ns)
            if whole(found):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"the trace is not whole: {[(span.stage, span.name) for span in found]}")


def _spans(sent: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            stage=_values(resource.resource.attributes)["chroma.stage"],
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            began_ns=span.start_time_unix_nano,
            ended_ns=span.end_time_unix_nano,
            fault=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else "",
            attributes=_values(span.attributes),
            events=tuple(event.name for event in span.events),
        )
        for resource in sent.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(pairs: "Any | list[KeyValue]") -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
