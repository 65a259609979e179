"""Log lines of calls: one for each call, and one for each failed request of a stream.

Rule of this module: fields are collected only if the line is written. A field whose value is unknown is left out.
"""

import logging
import time
from collections.abc import Mapping

from mlflow_grpc import logs
from mlflow_grpc.calls import traceparent
from mlflow_grpc.calls.call import Call
from mlflow_grpc.errors import Fault, ServingError

Fields = dict[str, object]


def log_call(level: int, call: Call, status: str, details: Mapping[str, object] | None = None) -> None:
    """Writes the line of a call that has ended.

    Args:
        level: Level of the line, as in `logging`.
        call: The call.
        status: Name of its gRPC status.
        details: Further fields.

    """
    if logs.calls.takes(level):
        logs.calls.write(level, "call", _fields(call, status, details))


def log_failed_call(level: int, call: Call, error: ServingError) -> None:
    """Writes the line of a call that ended with an error status; with the traceback of the error's cause."""
    if logs.calls.takes(level):
        logs.calls.write(level, "call", _fields(call, error.status.value, _error(error)), error.__cause__)


def log_failed_request(call: Call, error: ServingError, index: int) -> None:
    """Writes the line of one failed request of a stream; indices start at 0."""
    level = level_of(error)
    if logs.calls.takes(level):
        fields = {**_identity(call, error.status.value), "place": index, **_error(error)}
        logs.calls.write(level, "request", fields, error.__cause__)


def level_of(error: ServingError) -> int:
    """Log level of an error: INFO for the caller's faults, ERROR if there is a traceback, otherwise WARNING."""
    if error.fault is Fault.CALLER:
        return logging.INFO
    return logging.ERROR if error.__cause__ else logging.WARNING


def _identity(call: Call, status: str) -> Fields:
    return {"request_id": call.request_id, "method": call.method, "model": call.model, "status": status}


def _error(error: ServingError) -> Fields:
    return {"reason": error.reason, "error": error.logged}


def _fields(call: Call, status: str, details: Mapping[str, object] | None) -> Fields:
    fields = _identity(call, status)
    fields["duration_ms"] = round((time.monotonic() - call.started_at) * 1000, 3)
    usage = call.usage
    if usage.waited_s is not None:
        fields["waited_ms"] = round(usage.waited_s * 1000, 3)
    if usage.model_s is not None:
        fields["model_ms"] = round(usage.model_s * 1000, 3)
    if usage.rows is not None:
        fields["rows"] = usage.rows
    fields["peer"] = call.peer()
    if call.permit is not None:
        fields["caller"] = call.permit.caller
    header = call.metadata(traceparent.KEY)
    if header is not None and (trace_id := traceparent.trace_id(header)) is not None:
        fields["trace_id"] = trace_id
    if details is not None:
        fields.update(details)
    if call.ignored:
        fields["ignored_columns"] = len(call.ignored)
    return fields
