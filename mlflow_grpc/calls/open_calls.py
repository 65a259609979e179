"""Open calls of all protocols: how they end, even at shutdown, and what happens if a request never arrives.

Rule of this module: it is used from the event loop only. Each protocol writes errors in its own format.
"""

import asyncio
import logging
import time
from typing import Any

from mlflow_grpc.calls import traceparent
from mlflow_grpc.calls.call import Call
from mlflow_grpc.calls.idle import Arrivals
from mlflow_grpc.calls.log import level_of, log_call, log_failed_call
from mlflow_grpc.calls.refusals import Refusals
from mlflow_grpc.engine.time_limit import is_over
from mlflow_grpc.errors import CallerDeadlineExceeded, Fault, NotReady, RequestReadTimeout, ServingError, Status
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.telemetry.traces import Tracer

logger = get_logger(__name__)

SHUTDOWN = "The server is shutting down."

OVERDUE = "The request did not arrive in time. Send it in smaller parts, or over a faster connection."

MAX_READ_S = 300.0
"""Maximum time for a request to arrive, in seconds; a longer time limit of calls replaces it."""


class OpenCalls:
    """Registry of the calls that have arrived but not ended."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """Starts without calls.

        Args:
            tracer: Traces the calls; None if they are not traced.

        """
        self._tracer = tracer
        self.arrivals = Arrivals()
        self.is_closing = False
        """True once the server ends every call, because it stops."""
        self.ended_calls = 0
        """Number of calls that have ended so far."""
        self.failed_calls = 0
        """Number of calls among them that ended with an error which is not the caller's fault."""
        self._calls: dict[asyncio.Task[Any], Call] = {}
        self._refusals = Refusals()

    def add(self, task: "asyncio.Task[Any]", call: Call, *, is_traced: bool = True) -> None:
        """Registers a call that has arrived.

        Args:
            task: Answers the call.
            call: The call.
            is_traced: False for a call that gets no trace.

        """
        self._calls[task] = call
        self.arrivals.note(call.started_at)
        if call.method_metrics is not None:
            call.method_metrics.started += 1
        if self._tracer is not None and is_traced:
            header, parent = call.metadata(traceparent.KEY), None
            if header is not None:
                parent = traceparent.span_id(header)
            state = call.metadata(traceparent.STATE_KEY) if parent is not None else None
            try:
                call.trace = self._tracer.start(call.method, parent, state, call.started_at)
            except Exception:
                logger.exception("a call is not traced, because its trace cannot be started")

    async def close(self) -> None:
        """Sends the traces of the calls that have ended."""
        if self._tracer is not None:
            await self._tracer.close()

    def remove(self, task: "asyncio.Task[Any]") -> None:
        """Removes a call whose answer is complete."""
        self._calls.pop(task, None)

    def answered(self, call: Call, level: int) -> None:
        """Counts a call that has its answer, and writes its log line.

        Args:
            call: The call.
            level: Level of the line, as in `logging`.

        """
        self.ended_calls += 1
        _ended(call, "OK")
        log_call(level, call, "OK", {"request_bytes": call.request_bytes, "response_bytes": call.response_bytes})

    def failed(self, call: Call, error: BaseException, *, is_cancelled: bool) -> ServingError | None:
        """Counts and logs a failed call, and returns the error for its caller; None if the caller has left.

        Args:
            call: The call.
            error: The exception that ended it.
            is_cancelled: True if the call's task was cancelled, by its caller or by this object, or if the caller can
                no longer be reached.

        """
        self.ended_calls += 1
        has_left = is_cancelled and not self.is_closing and not call.is_overdue
        if has_left:
            if not is_over(call.deadline):
                _ended(call, Status.CANCELLED)
                log_call(logging.INFO, call, Status.CANCELLED)
                return None
            error = CallerDeadlineExceeded()
        elif is_cancelled:
            error = NotReady(SHUTDOWN) if self.is_closing else RequestReadTimeout(OVERDUE)
        serving_error = call.serving_error(error)
        self.failed_calls += serving_error.fault is not Fault.CALLER
        _ended(call, serving_error.status, serving_error)
        level = level_of(serving_error)
        if serving_error.is_frequent:
            self.refused(call.model, serving_error, call.peer())
            level = logging.DEBUG
        log_failed_call(level, call, serving_error)
        return None if has_left else serving_error

    def refused(self, model: str, error: ServingError, peer: str) -> None:
        """Counts a refusal for the log; see `Refusals.count`."""
        self._refusals.count(model, error, peer)

    async def end_streams(self) -> None:
        """Stops reading from streams, and waits until all requests that were read have been answered."""
        tasks = []
        for task, call in self._calls.items():
            if call.drain():
                tasks.append(task)
        if tasks:
            await asyncio.wait(tasks)

    def cancel_overdue(self, now: float, timeout_s: float) -> None:
        """Ends calls whose requests did not arrive in time.

        Args:
            now: On the clock of `time.monotonic`, in seconds.
            timeout_s: Time limit of a call, in seconds.

        """
        latest_start = now - max(timeout_s, MAX_READ_S)
        for task, call in self._calls.items():
            if not call.is_read and not call.is_overdue and call.started_at < latest_start:
                call.is_overdue = True
                task.cancel()

    def cancel_all(self) -> None:
        """Ends every open call with UNAVAILABLE, because the server stops.

        Such calls are health watches, which never end by themselves and would delay `Server.stop`, and calls of the
        model that exceeded the drain timeout.
        """
        self.is_closing = True
        self._refusals.write()
        for task in self._calls:
            task.cancel()


def _ended(call: Call, code: str, error: ServingError | None = None) -> None:
    """Counts and traces a call that has ended."""
    if call.trace is not None:
        try:
            call.trace.tracer.end(call.trace, call.server_span(code, error))
        except Exception:
            logger.exception("the trace of a call is lost, because its spans cannot be made")
    if call.method_metrics is not None:
        call.method_metrics.ended(code, time.monotonic() - call.started_at)
