"""Traces of calls, before they become OpenTelemetry spans.

Rule of this module: it keeps ids and times, and does not import OpenTelemetry, so that a server without tracing has no
cost. Times are on the clock of `time.monotonic`, in seconds. `mlflow_grpc.telemetry.otlp` creates and sends the spans.
"""

import random
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

MAX_LINKS = 128
"""Maximum number of links of a span, as in OpenTelemetry's SDK."""

AttributeValue = str | int | float | bool

_random = random.SystemRandom()  # Models may seed the generator of `random`, and ids must not repeat.


class SpanId(NamedTuple):
    """Ids of a span and of its trace."""

    trace_id: int
    span_id: int
    is_sampled: bool = True


class Tracer(Protocol):
    """Starts the traces of calls, and sends their spans."""

    def start(self, name: str, parent: SpanId | None, state: str | None, started_at: float) -> "CallTrace":
        """Starts the trace of a call.

        Args:
            name: Name of the call's span.
            parent: The caller's span; None if it sent none.
            state: The caller's header `tracestate`.
            started_at: Start of the call.

        """
        ...

    def end(self, trace: "CallTrace", span: "ServerSpan") -> None:
        """Sends the spans of a call that has ended."""
        ...

    def forward(self, span: Any, parent: SpanId, *, is_root: bool) -> None:
        """Sends a span that MLflow has created.

        Args:
            span: A `ReadableSpan` of OpenTelemetry's SDK, in one of MLflow's own traces.
            parent: The span of this server to which it belongs.
            is_root: True if its parent is that span; False if its parent is another of MLflow's spans.

        """
        ...

    async def close(self) -> None:
        """Sends the remaining spans, within a time limit."""
        ...


@dataclass(frozen=True)
class ServerSpan:
    """The span of a call, following the semantic conventions of its protocol."""

    name: str
    attributes: Mapping[str, AttributeValue]
    error_type: str | None = None
    """Type of an error that is the server's fault; None if the call succeeded or the error is the caller's fault."""
    description: str = ""
    """Message of that error."""


@dataclass(slots=True)
class Phase:
    """One part of a call, which becomes a child of its span."""

    name: str
    started_at: float
    ended_at: float | None
    """None while it runs."""
    span_id: int
    links: Sequence[SpanId] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


class CallTrace:
    """The trace of one call. The thread that currently works on the call adds phases."""

    __slots__ = ("has_phases", "id", "parent", "phases", "started_at", "state", "tracer")

    def __init__(self, tracer: Tracer, span: SpanId, parent: SpanId | None, started_at: float) -> None:
        """Starts the trace.

        Args:
            tracer: Sends its spans.
            span: Ids of the call's span.
            parent: The caller's span.
            started_at: Start of the call.

        """
        self.tracer = tracer
        self.id = span
        self.parent = parent
        self.started_at = started_at
        self.state: Any = None
        """The trace's `TraceState`, which the tracer keeps here."""
        self.phases: list[Phase] = []
        self.has_phases = span.is_sampled
        """False for a stream, which has one span, regardless of the number of messages."""

    def add(self, name: str, started_at: float, ended_at: float) -> None:
        """Adds a phase that has ended; if the previous phase has the same name, extends it instead."""
        if not self.has_phases:
            return
        if self.phases and self.phases[-1].name == name:
            self.phases[-1].ended_at = ended_at
        else:
            self.phases.append(Phase(name, started_at, ended_at, new_span_id()))


class ModelRun:
    """One running call of a model, for one request or for a batch.

    Each request of the batch gets its own phase. The phase of the first request has links to the others, which link
    back. Spans that the model creates are children of the first phase.
    """

    __slots__ = ("_phases", "_token")

    def __init__(self, traces: Sequence[CallTrace], requests: int, started_at: float) -> None:
        """Begins the run in the current thread and context.

        Args:
            traces: Traces of the traced requests; at least one.
            requests: Number of requests in the batch.
            started_at: Start of the run.

        """
        # If no trace is sampled, one is kept, so that the model's own spans are not sampled either.
        traces = [trace for trace in traces if trace.id.is_sampled] or traces[:1]
        attributes: dict[str, AttributeValue] = {} if requests == 1 else {"mlflow_grpc.batch.calls": requests}
        ids = [trace.id._replace(span_id=new_span_id()) if trace.has_phases else trace.id for trace in traces]
        self._phases = []
        for number, (trace, span) in enumerate(zip(traces, ids, strict=True)):
            if trace.has_phases:
                links = (ids[:1] if number else ids[1 : 1 + MAX_LINKS]) if len(ids) > 1 else ()
                phase = Phase("predicting", started_at, None, span.span_id, links, attributes)
                trace.phases.append(phase)
                self._phases.append(phase)
        self._token: Token[ModelSpan | None] = MODEL_SPAN.set(ModelSpan(traces[0].tracer, ids[0]))

    def end(self, ended_at: float) -> None:
        """Ends the run, in the context in which it began."""
        MODEL_SPAN.reset(self._token)
        for phase in self._phases:
            phase.ended_at = ended_at


class ModelSpan(NamedTuple):
    """The span to which the spans of the running model belong."""

    tracer: Tracer
    id: SpanId


MODEL_SPAN: ContextVar[ModelSpan | None] = ContextVar("mlflow_grpc_model_span", default=None)
"""Set in the thread and context of a model that runs for a traced call."""


def new_span_id() -> int:
    """Returns a random id of a span, which is never 0."""
    return _random.getrandbits(64) or 1


def new_trace_id() -> int:
    """Returns a random id of a trace, which is never 0."""
    return _random.getrandbits(128) or 1


def epoch_offset_ns() -> int:
    """Returns the nanoseconds to add to a time of `time.monotonic` to get the time since 1970."""
    return time.time_ns() - time.monotonic_ns()
