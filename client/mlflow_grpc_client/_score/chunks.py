"""Chunks of the input: rows that are sent in one call, with their place in the input.

Rule of this module: it holds rows as they are in their file; `casts` converts texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mlflow_grpc_client._score import columns

Rows = Any
"""A pyarrow.Table; or a list of dicts from JSON lines, and a list of lines before they are decoded."""


@dataclass
class Chunk:
    """Rows of one file, in their order."""

    file: str
    first: int
    """Number of the first row in the input, from 0."""
    first_in_file: int
    count: int
    """Number of rows, with those in `faults`."""
    rows: Rows
    """The rows that can be read."""
    offsets: Sequence[int]
    """Their positions in the chunk; a range instead of a number for each row, if all rows can be read."""
    faults: dict[int, str] = field(default_factory=dict)
    """Why a row cannot be read, by its position in the chunk."""
    encoding: str = ""
    """csv for a table of texts, jsonl for a list of lines; empty for a table with the types of the file."""
    file_index: int = 0
    """Position of the file in the input."""
    progress: float = 0.0
    """How much of the input has been read with this chunk, from 0 to 1."""

    @property
    def end(self) -> int:
        """Number of the row after the last one, in the input."""
        return self.first + self.count

    @property
    def position(self) -> tuple[int, int]:
        """The file, and the number of the row after the last one in it."""
        return self.file_index, self.first_in_file + self.count


def taken(rows: Rows, start: int, end: int) -> Rows:
    """Rows from one position to another."""
    return rows[start:end] if isinstance(rows, list) else rows.slice(start, end - start)


def selected(rows: Rows, positions: Sequence[int]) -> Rows:
    """Rows at positions."""
    if len(positions) == len(rows):
        return rows
    return (
        [rows[position] for position in positions]
        if isinstance(rows, list)
        else rows.take(pa.array(positions, pa.int64()))
    )


def kept(rows: Rows, names: list[str]) -> Any:
    """Columns of rows as a table; null where a row of JSON lines has no such value."""
    if not isinstance(rows, list):
        return rows.select(names)
    pairs = [columns.column(name, [row.get(name) for row in rows]) for name in names]
    return pa.table([array for _, array in pairs], schema=pa.schema([item for item, _ in pairs]))


def tables_of(batches: Iterator[Any], size: int) -> Iterator[Any]:
    """The rows of record batches in tables of one size; the last one may be smaller."""
    waiting: list[Any] = []
    count = 0
    for batch in batches:
        start = 0
        while batch.num_rows - start >= size - count:
            waiting.append(batch.slice(start, size - count))
            start += size - count
            yield pa.Table.from_batches(waiting)
            waiting, count = [], 0
        if start < batch.num_rows:
            waiting.append(batch.slice(start))
            count += batch.num_rows - start
    if waiting:
        yield pa.Table.from_batches(waiting)
