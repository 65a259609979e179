"""OpenTelemetry spans, and their export to a collector.

Rule of this module: it is imported only if tracing is on, because OpenTelemetry's SDK takes time to import. Spans are
created after a call has ended, from the times that were recorded during the call. A queue and a thread of the SDK send
them. The SDK reads its own variables: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_* and
OTEL_EXPORTER_OTLP_*.

The module creates `ReadableSpan` objects directly: `Tracer.start_span` takes ten times as long, and does not accept an
id that was assigned earlier.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from mlflow_grpc import __version__
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.telemetry.traces import (
    AttributeValue,
    CallTrace,
    Phase,
    ServerSpan,
    SpanId,
    epoch_offset_ns,
    new_span_id,
    new_trace_id,
)

logger = get_logger(__name__)

FLUSH_S = 3.0
"""Maximum time to send the last spans when the server stops, in seconds."""

SERVICE = "mlflow-grpc"
"""Name of the service, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has one."""

LOUD_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.http.transport",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.trace.span",
)
"""OpenTelemetry's loggers that write a line for each attempt to reach a collector, for each dropped span, or for each
invalid `tracestate`, with the caller's text."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_UNSET = Status(StatusCode.UNSET)
_SCOPE = InstrumentationScope("mlflow_grpc", __version__)


class OtlpTracer:
    """Tracer that sends spans to a collector, in the background."""

    def __init__(self, exporter: SpanExporter, source: str) -> None:
        """Starts the thread that sends spans.

        Args:
            exporter: Sends batches of spans.
            source: The collector, for the log.

        """
        resource = Resource.create({"process.pid": os.getpid()})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
        self._resource = resource
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        for name in LOUD_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._processor = BatchSpanProcessor(_ReportingExporter(exporter, source))

    def start(self, name: str, parent: SpanId | None, state: str | None, started_at: float) -> CallTrace:
        """Starts the trace of a call; the sampler in OTEL_TRACES_SAMPLER decides whether it is sampled."""
        trace_id = new_trace_id() if parent is None else parent.trace_id
        trace_state = TraceState.from_header([state]) if state is not None else None
        if parent is not None and isinstance(self._sampler, ParentBased):  # The caller decides; sampling takes 10 us.
            is_sampled = parent.is_sampled
        else:
            context = None
            if parent is not None:
                caller = _context_of(parent, state=trace_state, is_remote=True)
                context = set_span_in_context(NonRecordingSpan(caller), Context())
            sampled = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
            is_sampled = sampled.decision is Decision.RECORD_AND_SAMPLE
        trace = CallTrace(self, SpanId(trace_id, new_span_id(), is_sampled), parent, started_at)
        trace.state = trace_state
        return trace

    def end(self, trace: CallTrace, span: ServerSpan) -> None:
        """Sends the spans of a call that has ended, if it is sampled."""
        if not trace.id.is_sampled:
            return
        ended_at = time.monotonic()
        offset_ns = epoch_offset_ns()
        state: TraceState | None = trace.state
        context = _context_of(trace.id, state=state)
        attributes: Mapping[str, AttributeValue] = span.attributes
        status = _UNSET
        if span.error_type is not None:
            attributes = {**attributes, "error.type": span.error_type}
            status = Status(StatusCode.ERROR, span.description)
        for phase in tuple(trace.phases):
            self._processor.on_end(self._phase(phase, context, ended_at, offset_ns))
        parent = None if trace.parent is None else _context_of(trace.parent, state=state, is_remote=True)
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                kind=SpanKind.SERVER,
                status=status,
                start_time=_ns(trace.started_at, offset_ns),
                end_time=_ns(ended_at, offset_ns),
                instrumentation_scope=_SCOPE,
            )
        )

    def _phase(self, phase: Phase, parent: SpanContext, call_ended_at: float, offset_ns: int) -> ReadableSpan:
        ended_at = call_ended_at if phase.ended_at is None else phase.ended_at
        return ReadableSpan(
            phase.name,
            context=SpanContext(parent.trace_id, phase.span_id, is_remote=False, trace_flags=_SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=phase.attributes,
            links=[Link(_context_of(span)) for span in phase.links],
            start_time=_ns(phase.started_at, offset_ns),
            end_time=_ns(min(ended_at, call_ended_at), offset_ns),
            instrumentation_scope=_SCOPE,
        )

    def forward(self, span: ReadableSpan, parent: SpanId, *, is_root: bool) -> None:
        """Sends a copy of one of MLflow's spans, in the trace of a call."""
        if span.context is None or not parent.is_sampled:
            return
        above = parent.span_id if is_root or span.parent is None else span.parent.span_id
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=_context_of(SpanId(parent.trace_id, span.context.span_id)),
                parent=_context_of(SpanId(parent.trace_id, above)),
                resource=self._resource,
                attributes=span.attributes,
                events=span.events,
                links=span.links,
                kind=span.kind,
                status=span.status,
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
        )

    async def close(self) -> None:
        """Sends the queued spans, within FLUSH_S."""
        closing = asyncio.ensure_future(in_daemon_thread(self._processor.shutdown, "close-traces"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await asyncio.shield(closing)
        if not closing.done():
            logger.warning("the last spans were not sent within %g s", FLUSH_S)


def _context_of(span: SpanId, *, state: TraceState | None = None, is_remote: bool = False) -> SpanContext:
    flags = _SAMPLED if span.is_sampled else _NOT_SAMPLED
    return SpanContext(span.trace_id, span.span_id, is_remote=is_remote, trace_flags=flags, trace_state=state)


def _ns(time_s: float, offset_ns: int) -> int:
    """Returns nanoseconds since 1970 for a time of `time.monotonic`."""
    return round(time_s * 1e9) + offset_ns


class _ReportingExporter(SpanExporter):
    """Exporter that writes one log line when a collector stops accepting spans, and one when it accepts them again."""

    def __init__(self, exporter: SpanExporter, source: str) -> None:
        self._exporter = exporter
        self._source = source
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends a batch; runs in the SDK's thread."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - reported below; the next batch is tried anyway
            logger.debug("spans were not sent: %s", error)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                logger.info("%s accepts spans again; at least %d were lost", self._source, self._lost)
                self._lost = 0
        else:
            if not self._lost:
                logger.warning("%s accepts no spans; calls are not affected, but spans are lost", self._source)
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Closes the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Sends the spans that the exporter has buffered."""
        return self._exporter.force_flush(timeout_millis)
