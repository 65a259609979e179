"""A collector of OpenTelemetry for tests: it takes spans over gRPC, or over HTTP, and keeps them."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support.http_server import run_in_thread


class ReceivedSpan:
    """A span as it came over the wire."""

    def __init__(self, span: Any, resource: dict[str, Any], scope: str) -> None:
        self.name: str = span.name
        self.kind = trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
        self.trace_id: str = span.trace_id.hex()
        self.span_id: str = span.span_id.hex()
        self.parent_id: str = span.parent_span_id.hex()
        self.start: int = span.start_time_unix_nano
        self.end: int = span.end_time_unix_nano
        self.attributes = _values(span.attributes)
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.status = trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_")
        self.description: str = span.status.message
        self.state: str = span.trace_state
        self.resource = resource
        self.scope = scope


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


class _Received:
    """Spans that have come, and a way to wait for more."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._news = threading.Condition()

    def _take(self, data: bytes) -> bytes:
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(data)
        spans = [
            ReceivedSpan(span, _values(of_resource.resource.attributes), of_scope.scope.name)
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        with self._news:
            self._spans += spans
            self._news.notify_all()
        return bytes(trace_service_pb2.ExportTraceServiceResponse().SerializeToString())

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans so far, in the order in which they began."""
        with self._news:
            return sorted(self._spans, key=lambda span: span.start)

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def children(self, parent: ReceivedSpan) -> dict[str, ReceivedSpan]:
        """The children of a span, by their names."""
        return {span.name: span for span in self.spans if span.parent_id == parent.span_id}

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 60) -> list[ReceivedSpan]:
        """Waits until `count` spans of a name have come."""
        with self._news:
            assert self._news.wait_for(lambda: sum(span.name == name for span in self._spans) >= count, timeout_s), (
                f"of {count} spans {name!r} came: {[span.name for span in self._spans]}"
            )
        return self.named(name)


class Collector(_Received):
    """A collector that speaks OTLP over gRPC."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        super().__init__()
        self._server = grpc.server(ThreadPoolExecutor(2))
        handler: Any = grpc.unary_unary_rpc_method_handler(lambda data, _: self._take(data))
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        host, _, _ = address.rpartition(":")
        self.url = f"http://{host}:{self._server.add_insecure_port(address)}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(None).wait()


class HttpCollector(_Received):
    """A collector that speaks OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                is_traces = self.path == "/v1/traces"
                answer = collector._take(data) if is_traces else b""
                self.send_response(200 if is_traces else 404)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        run_in_thread(self._server)
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
