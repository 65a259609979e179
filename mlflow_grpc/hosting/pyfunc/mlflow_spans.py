"""Spans that MLflow makes while a model runs, such as those of `@mlflow.trace`, as children of the call's span.

Rule of this module: MLflow's own traces stay as they are. MLflow keeps its spans in a tracer provider of its own, in
traces of their own. Copies of the spans of sampled calls go to the collector, in the traces of the calls. If MLflow
sends its spans to a collector by itself (OTEL_EXPORTER_OTLP_ENDPOINT), its trace continues that of the call instead.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.telemetry.traces import MODEL_SPAN, ModelSpan

logger = get_logger(__name__)

MAX_TRACES = 1024
"""Maximum number of MLflow's traces whose calls are kept; a span may end after its trace."""

_UNTRACED: AbstractContextManager[None] = nullcontext()


def joined() -> AbstractContextManager[None]:
    """Returns a context manager that makes MLflow's spans children of the span of the call that the model runs for."""
    span = MODEL_SPAN.get()
    return _UNTRACED if span is None else _joined(span)


@contextmanager
def _joined(span: ModelSpan) -> Iterator[None]:
    if not internals.exports_otlp():
        if span.id.is_sampled:
            _copies.attach()
        yield
        return
    with internals.trace_continued(f"00-{span.id.trace_id:032x}-{span.id.span_id:016x}-{int(span.id.is_sampled):02x}"):
        yield


class _Copies(SpanProcessor):
    """Processor of MLflow's tracer provider that copies the spans of traced calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._providers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._calls: OrderedDict[int, ModelSpan] = OrderedDict()

    def attach(self) -> None:
        """Adds the processor to MLflow's tracer provider, which MLflow may replace at any time."""
        try:
            provider = internals.tracer_provider()
        except Exception:  # As in MLflow, a call does not fail for its trace.
            logger.debug("MLflow has no tracer provider", exc_info=True)
            return
        if provider is None or provider in self._providers:
            return
        with self._lock:
            if provider not in self._providers:
                provider.add_span_processor(self)
                self._providers.add(provider)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Keeps the call of a trace that begins."""
        if span.parent is not None or span.context is None:
            return
        call = MODEL_SPAN.get()
        if call is not None and call.id.is_sampled:
            with self._lock:
                self._calls[span.context.trace_id] = call
                if len(self._calls) > MAX_TRACES:
                    self._calls.popitem(last=False)

    def on_end(self, span: ReadableSpan) -> None:
        """Sends a copy of a span that belongs to a call."""
        call = None if span.context is None else self._calls.get(span.context.trace_id)
        if call is not None:
            call.tracer.forward(span, call.id, is_root=span.parent is None)


_copies = _Copies()
