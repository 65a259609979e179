"""The results of a replay: a table for people, and a Parquet file with a row for each call.

Rule of this module: it counts and writes. A file has its name only once it is complete.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_grpc.errors import StartError
from mlflow_grpc.recording.columns import SCHEMA as RECORDED
from mlflow_grpc.replay.calls import ReplayedCall

SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string()),
        RECORDED.field("started_at"),
        pa.field("model", pa.string()),
        pa.field("version", pa.string()),
        pa.field("is_same", pa.bool_()),
        pa.field("differences", pa.int64()),
        pa.field("first_difference", pa.string()),
        pa.field("largest_difference", pa.float64()),
        pa.field("status", pa.string()),
        pa.field("replayed_status", pa.string()),
        pa.field("replayed_error", pa.string()),
        pa.field("duration_ms", pa.float64()),
        pa.field("replayed_ms", pa.float64()),
        pa.field("content_type", pa.string()),
        pa.field("input", pa.string()),
        pa.field("output", pa.string()),
        pa.field("replayed_output", pa.string()),
    ]
)
"""Columns of the file. Those of the recorded call have the names that they have there."""

ROWS_AT_A_TIME, MAX_SHOWN = 256, 10
"""Number of rows that are written at a time, and maximum number of calls that the table shows."""

HEAD = ("model", "version", "calls", "same", "different", "errors", "errors now", "largest difference")


class ResultFile:
    """The file of a replay."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        """Takes the writer of the file."""
        self._writer = writer
        self._rows: list[dict[str, object]] = []

    def add(self, call: ReplayedCall) -> None:
        """Adds a row."""
        recorded, compared = call.recorded, call.difference
        self._rows.append(
            {
                **{name: getattr(recorded, name) for name in SCHEMA.names if hasattr(recorded, name)},
                "is_same": call.is_same,
                "differences": compared.count,
                "first_difference": compared.first or None,
                "largest_difference": compared.largest,
                "replayed_status": call.status,
                "replayed_error": call.error,
                "replayed_ms": call.duration_ms,
                "replayed_output": call.output,
            }
        )
        if len(self._rows) >= ROWS_AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are in memory."""
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []


@contextlib.contextmanager
def result_file(path: Path | None) -> Iterator[ResultFile | None]:
    """Opens the file of a replay, which is complete at the end of the block; None without a path.

    Raises:
        StartError: The file cannot be written.

    """
    if path is None:
        yield None
        return
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            results = ResultFile(writer)
            yield results
            results.flush()
        unfinished.replace(path)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


class Summary:
    """Counts of all calls, and the first calls that differ."""

    def __init__(self) -> None:
        """Starts at zero."""
        self.different = 0
        """Number of calls whose status or answer is another one now."""
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._largest: dict[tuple[str, str], float] = {}
        self._shown: list[tuple[str, str]] = []

    def add(self, call: ReplayedCall) -> None:
        """Counts a call."""
        recorded = call.recorded
        key = recorded.model, recorded.version
        counts = self._counts.setdefault(key, [0] * 5)
        facts = (True, call.is_same, not call.is_same, recorded.status != "OK", call.status != "OK")
        for index, fact in enumerate(facts):
            counts[index] += fact
        if call.difference.largest is not None:
            self._largest[key] = max(self._largest.get(key, 0.0), call.difference.largest)
        if not call.is_same:
            self.different += 1
            if len(self._shown) < MAX_SHOWN:
                self._shown.append((recorded.request_id, _described(call)))

    def lines(self) -> Iterator[str]:
        """Yields the lines of the table, and those of the first calls that differ."""
        rows: list[tuple[str, ...]] = [HEAD]
        for (model, version), counts in sorted(self._counts.items()):
            largest = self._largest.get((model, version))
            numbers = (f"{count:,}" for count in counts)
            rows.append((model, version or "-", *numbers, "-" if largest is None else f"{largest:.6g}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (
                cell.ljust(width) if index < 2 else cell.rjust(width)  # noqa: PLR2004 - the columns of text
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            yield "  ".join(cells).rstrip()
        if self._shown:
            yield ""
            yield "calls that differ:" if self.different <= MAX_SHOWN else f"the first {MAX_SHOWN} calls that differ:"
            yield from (f"  {request_id}  {text}" for request_id, text in self._shown)


def _described(call: ReplayedCall) -> str:
    if call.status != call.recorded.status:
        reason = f": {call.error}" if call.error else ""
        return f"{call.recorded.status} is now {call.status}{reason}"
    return call.difference.first
