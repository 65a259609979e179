"""The columns of the files, which have one row for each recorded call.

Rule of this module: it imports pyarrow, so it is imported only in threads and commands that write or read files.
"""

from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call, in the order and with the names of the columns."""

    request_id: str
    """Id of the call in the log; all requests of a stream have that of their call."""
    started_at: datetime
    """When the request arrived, in UTC."""
    method: str
    """Path of the gRPC method, or method and path of the HTTP request."""
    model: str
    version: str
    """Version in the registry; empty if the model has none."""
    status: str
    """Name of the gRPC status; OK if the call was answered."""
    error: str | None
    """The logged text of the error, which has no values of the payload; None if the call was answered."""
    rows: int | None
    """Number of rows of the input; None if it is unknown."""
    waited_ms: float
    """Time before decoding, in milliseconds."""
    model_ms: float
    """Time in the model, in milliseconds."""
    duration_ms: float
    """Time from the arrival of the request to its answer, in milliseconds."""
    content_type: str
    """Media type of `input`."""
    input: str | None
    """The payload of a call with text, or the same input as JSON; None if it cannot be read."""
    output: str | None
    """The answer as text, in the form that a caller with text gets; None if there is none."""


SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("method", pa.string()),
        pa.field("model", pa.string()),
        pa.field("version", pa.string()),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("waited_ms", pa.float64()),
        pa.field("model_ms", pa.float64()),
        pa.field("duration_ms", pa.float64()),
        pa.field("content_type", pa.string()),
        pa.field("input", pa.string()),
        pa.field("output", pa.string()),
    ]
)


def batch_of(rows: list[CallRow]) -> pa.RecordBatch:
    """Returns rows as a record batch."""
    columns: list[Any] = [list(column) for column in zip(*map(astuple, rows), strict=True)]
    return pa.record_batch(
        [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
