"""Scoring of a chunk: calls, retries, and the search for the rows at fault.

Rule of this module: it runs in several threads, and shares only a stop signal and the size of calls.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mlflow_grpc_client._score import columns
from mlflow_grpc_client._score.calls import Calls
from mlflow_grpc_client._score.casts import Cell, decoded
from mlflow_grpc_client._score.chunks import Chunk, Rows, kept, selected, taken
from mlflow_grpc_client._score.errors import ScoreError, Stopped
from mlflow_grpc_client.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelError,
    PredictError,
    ResourceExhausted,
    Unavailable,
)

MAX_RETRY_PAUSE_S = 5.0
OVERLOAD_REASON = "REQUEST_LIMIT_EXCEEDED"


@dataclass(frozen=True)
class RowError:
    """A row that cannot be scored."""

    row: int
    """Number of the row in the input, from 0."""
    file: str
    row_in_file: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The line of the errors file."""
        return {"row": self.row, "file": self.file, "row_in_file": self.row_in_file, "reason": self.reason}


@dataclass
class Outcome:
    """The output of a chunk."""

    chunk: Chunk
    table: Any
    """The columns to keep and the predicted columns, of the rows that could be scored; None for no rows."""
    errors: list[RowError]


@dataclass(frozen=True)
class FilePlan:
    """The columns of a file."""

    inputs: list[str] | None
    """The columns for the model; None for those of each row."""
    cells: dict[str, Cell]
    keep: list[str] | None
    """The columns to copy to the output; None for all of each row."""


@dataclass
class _Search:
    """The rows of a chunk that are scored, and those at fault."""

    tables: list[Any] = field(default_factory=list)
    ranges: list[range] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def positions(self) -> Sequence[int]:
        """Positions of the scored rows; a range instead of a number for each, if one call had them all."""
        return self.ranges[0] if len(self.ranges) == 1 else [row for rows in self.ranges for row in rows]


class Scorer:
    """Scores chunks in any number of threads."""

    def __init__(self, calls: Calls, *, max_faults: int, retry_s: float) -> None:
        """Takes the options of a run.

        Args:
            calls: Makes the calls.
            max_faults: Number of rows at fault in a chunk after which its other rows are left alone.
            retry_s: How long a call is tried again while the server is away or overloaded, in seconds.

        """
        self._calls = calls
        self._max_faults = max_faults
        self._retry_s = retry_s
        self._stopped = threading.Event()
        self._max_rows: float = float("inf")

    def stop(self) -> None:
        """Lets all threads give up."""
        self._stopped.set()

    def score(self, chunk: Chunk, plan: FilePlan) -> Outcome:
        """The output of a chunk.

        Raises:
            ScoreError: The run cannot go on.
            Stopped: The run has ended.

        """
        source = decoded(chunk, plan.cells)
        search = _Search(faults={})
        if len(source.faults) < self._max_faults:
            self._search(source.rows, 0, plan.inputs, search)
        faults = {**source.faults, **{source.offsets[position]: text for position, text in search.faults.items()}}
        errors = [
            RowError(chunk.first + offset, chunk.file, chunk.first_in_file + offset, reason)
            for offset, reason in sorted(faults.items())
        ]
        table = self._table(selected(source.source, search.positions), plan.keep, search) if search.ranges else None
        return Outcome(chunk, table, errors)

    def _table(self, rows: Rows, keep: list[str] | None, search: _Search) -> Any:
        table = search.tables[0]
        if len(search.tables) > 1:
            schema = columns.unified(table.schema for table in search.tables)
            table = pa.concat_tables([columns.conformed(table, schema) for table in search.tables])
        if keep is None:
            keep = (
                list(dict.fromkeys(name for row in rows for name in row))
                if isinstance(rows, list)
                else rows.column_names
            )
        copied = kept(rows, keep)
        if clashes := [name for name in copied.column_names if name in table.column_names]:
            raise ScoreError(
                f"the input column {clashes[0]!r}, which --keep copies, has the name of a predicted column: add "
                "--prefix, such as --prefix predicted_"
            )
        fields = [*copied.schema, *table.schema]
        return pa.table([*copied.columns, *table.columns], schema=pa.schema(fields))

    def _search(self, rows: Rows, start: int, inputs: list[str] | None, search: _Search) -> None:
        """Scores rows; halves those that are refused until single rows are left."""
        count = len(rows)
        if not count or len(search.faults) >= self._max_faults:
            return
        if count <= self._max_rows:
            try:
                table = self._call(rows, inputs)
            except (InvalidInput, ModelError, TypeError, ValueError) as error:
                if count == 1:
                    search.faults[start] = _reason(error)
                    return
            except ResourceExhausted as error:
                if count == 1:
                    search.faults[start] = _reason(error)
                    return
                self._max_rows = min(self._max_rows, (count + 1) // 2)
            else:
                search.tables.append(table)
                search.ranges.append(range(start, start + count))
                return
        half = (count + 1) // 2
        self._search(taken(rows, 0, half), start, inputs, search)
        self._search(taken(rows, half, count), start + half, inputs, search)

    def _call(self, rows: Rows, inputs: list[str] | None) -> Any:
        """The predicted columns of rows.

        Raises:
            InvalidInput, ModelError, TypeError, ValueError: Some row is at fault.
            ResourceExhausted: The call is too large.
            ScoreError: The run cannot go on.
            Stopped: The run has ended.

        """
        until = time.monotonic() + self._retry_s
        pause_s = 0.5
        while True:
            if self._stopped.is_set():
                raise Stopped
            try:
                return self._calls.score(rows, inputs)
            except (InvalidInput, ModelError):
                raise
            except PredictError as error:
                if self._stopped.is_set():
                    raise Stopped from None
                if isinstance(error, ResourceExhausted) and "larger than" in error.message:
                    raise
                is_temporary = isinstance(error, Unavailable) or error.reason == OVERLOAD_REASON
                if not is_temporary or time.monotonic() + pause_s > until:
                    raise ScoreError(_advice(error, len(rows))) from None
            self._stopped.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_RETRY_PAUSE_S)


def _reason(error: Exception) -> str:
    """Why a row was refused, with the exception of the model if the server shows it."""
    exception = getattr(error, "exception", "")
    return f"{error}: {exception}" if exception else str(error)


def _advice(error: PredictError, count: int) -> str:
    if isinstance(error, DeadlineExceeded):
        return f"{error} A call has {count} rows: lower --rows, or raise --timeout"
    return str(error)
