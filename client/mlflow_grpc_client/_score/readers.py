"""Readers of Parquet, CSV, JSON lines and Arrow, in chunks of rows.

Rule of this module: memory is bounded by the size of a chunk and of a block of the file. A file that cannot be read is
an error of the run; a row that cannot be read is a fault of its chunk.
"""

import bisect
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mlflow_grpc_client._score.chunks import Chunk, selected, tables_of
from mlflow_grpc_client._score.errors import ScoreError
from mlflow_grpc_client._score.files import InputFile

BLOCK_BYTES = 8 * 1024 * 1024
"""Bytes of CSV that are parsed at a time, which is also the maximum size of a row."""

BUFFER_BYTES = 1024 * 1024
"""Bytes of a column of Parquet that are read at a time."""

_MAGIC = b"ARROW1"
"""Begin of an Arrow file; a stream has none."""


@contextmanager
def reading(file: InputFile) -> Iterator[None]:
    """Turns pyarrow's errors into a ScoreError with the name of the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ScoreError(f"{file.location.label} cannot be read: {error}") from None


def names_in(file: InputFile, delimiter: str) -> list[str] | None:
    """The names of the columns of a file; None for JSON lines, whose rows can differ."""
    with reading(file):
        match file.format:
            case "parquet":
                with pyarrow.parquet.ParquetFile(_random_access(file)) as parquet:
                    return list(parquet.schema_arrow.names)
            case "arrow":
                return list(_arrow(file)[0].names)
            case "csv":
                return _unique(_csv_reader(file, delimiter, None, lambda row: "skip")[0].schema.names, file)
    return None


def _unique(names: list[str], file: InputFile) -> list[str]:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ScoreError(f"{file.location.label} has several columns of the name {duplicates[0]!r}")
    return list(names)


def chunks_of(file: InputFile, size: int, names: list[str] | None, delimiter: str, skip: int) -> Iterator[Chunk]:
    """The rows of a file after a number of rows to skip.

    Args:
        file: The file.
        size: Rows of a chunk; the last one may have fewer.
        names: The columns to read; None for JSON lines, which are read as they are.
        delimiter: The delimiter of CSV.
        skip: Number of rows to skip.

    Yields:
        Chunks whose `first` counts from the begin of the file, and whose `progress` is that in the file.

    """
    with reading(file):
        match file.format:
            case "parquet":
                yield from _parquet_chunks(file, size, names, skip)
            case "arrow":
                _, batches, total = _arrow(file)
                selected = (batch.select(names) for batch in batches)
                yield from _table_chunks(file, _after(selected, skip), size, skip, total)
            case "csv":
                yield from _csv_chunks(file, size, names, delimiter, skip)
            case _:
                yield from _line_chunks(file, size, skip)


def _random_access(file: InputFile) -> Any:
    return file.location.system.open_input_file(file.location.path)


def _stream(file: InputFile) -> tuple[Any, Any]:
    """The bytes of a file, decompressed, and the stream whose position is that in the file."""
    stream = _random_access(file)
    return (pa.CompressedInputStream(stream, file.compression) if file.compression else stream), stream


def _table_chunks(file: InputFile, batches: Iterator[Any], size: int, first: int, total: int | None) -> Iterator[Chunk]:
    for table in tables_of(batches, size):
        count = table.num_rows
        chunk = Chunk(file.location.label, first, first, count, table, range(count))
        first += count
        chunk.progress = first / total if total else 0.0
        yield chunk


def _after(batches: Iterator[Any], skip: int) -> Iterator[Any]:
    for batch in batches:
        if skip < batch.num_rows:
            yield batch.slice(skip)
        skip = max(0, skip - batch.num_rows)


def _parquet_chunks(file: InputFile, size: int, names: list[str] | None, skip: int) -> Iterator[Chunk]:
    with pyarrow.parquet.ParquetFile(_random_access(file), buffer_size=BUFFER_BYTES, pre_buffer=False) as parquet:
        counts = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        group, before = 0, 0
        while group < len(counts) and before + counts[group] <= skip:
            before += counts[group]
            group += 1
        if group == len(counts):
            return
        batches = parquet.iter_batches(batch_size=size, row_groups=range(group, len(counts)), columns=names)
        yield from _table_chunks(file, _after(batches, skip - before), size, skip, sum(counts))


def _arrow(file: InputFile) -> tuple[Any, Iterator[Any], int | None]:
    """The schema, the record batches and, if it is known, the number of rows of an Arrow file or stream."""
    # A record batch can be as large as the file. Of a mapped file, only the rows of a chunk are read.
    source = pa.memory_map(file.location.path) if _is_local(file) and file.size else _random_access(file)
    if source.read(len(_MAGIC)) != _MAGIC:
        source.seek(0)
        stream = pa.ipc.open_stream(source)
        return stream.schema, iter(stream), None
    source.seek(0)
    reader = pa.ipc.open_file(source)
    batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    total = (
        sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches)) if _is_local(file) else None
    )
    return reader.schema, batches, total


def _is_local(file: InputFile) -> bool:
    return getattr(file.location.system, "handler", None) is None


def _csv_reader(file: InputFile, delimiter: str, names: list[str] | None, refuse: Any) -> tuple[Any, Any]:
    """A reader of all values as texts, and the stream whose position is that in the file."""
    data, raw = _stream(file)
    header = pyarrow.csv.ConvertOptions(
        include_columns=names or [],
        column_types=dict.fromkeys(names or [], pa.string()),
        strings_can_be_null=False,
        check_utf8=False,  # `_not_utf8` checks, since one value must not end the whole run.
    )
    reader = pyarrow.csv.open_csv(
        data,
        # With threads, the numbers of refused rows are unknown.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse
        ),
        convert_options=header,
    )
    return reader, raw


def _csv_chunks(file: InputFile, size: int, names: list[str] | None, delimiter: str, skip: int) -> Iterator[Chunk]:
    refused: list[tuple[int, str]] = []

    def refuse(row: Any) -> str:
        reason = f"the row has {row.actual_columns} values, and the header {row.expected_columns} names"
        refused.append((row.number - 2, reason))  # Counted from 1, with the header.
        return "skip"

    reader, raw = _csv_reader(file, delimiter, names, refuse)
    start = position = skip  # The first row of the next chunk, and the row after the last one that was read.
    tables: list[Any] = [_no_rows(reader.schema)]
    positions: list[int] = []
    faults: dict[int, str] = {}
    number = 0
    for batch in reader:
        numbers: list[int] = []
        while len(numbers) < batch.num_rows:
            if refused and refused[0][0] == number:
                faults[number] = refused.pop(0)[1]
                number += 1
            else:
                count = batch.num_rows - len(numbers)
                count = min(count, refused[0][0] - number) if refused else count
                numbers += range(number, number + count)
                number += count
        skipped = bisect.bisect_left(numbers, skip)
        tables.append(batch.slice(skipped))
        positions += numbers[skipped:]
        position = number
        while position - start >= size:
            yield _csv_chunk(file, tables, positions, faults, start, start + size, raw)
            start += size
    for number, reason in refused:
        faults[number] = reason
        position = number + 1
    while position > start:
        end = min(position, start + size)
        yield _csv_chunk(file, tables, positions, faults, start, end, raw)
        start = end


def _no_rows(schema: Any) -> Any:
    """A batch without rows, for a chunk in which no row can be read."""
    return pa.RecordBatch.from_pylist([], schema=schema)


def _csv_chunk(
    file: InputFile, tables: list[Any], positions: list[int], faults: dict[int, str], start: int, end: int, raw: Any
) -> Chunk:
    """Takes the rows from `start` to `end` out of those that were read."""
    count = bisect.bisect_left(positions, end)
    table = pa.Table.from_batches(tables)
    tables[:] = table.slice(count).to_batches() or [_no_rows(table.schema)]
    offsets = [position - start for position in positions[:count]]
    del positions[:count]
    reasons = {number - start: faults[number] for number in range(start, end) if number in faults} if faults else {}
    for number in range(start, end) if faults else ():
        faults.pop(number, None)
    rows = table.slice(0, count)
    if unreadable := _not_utf8(rows):
        reasons |= {offsets[row]: reason for row, reason in unreadable.items()}
        readable = [row for row in range(count) if row not in unreadable]
        rows, offsets = selected(rows, readable), [offsets[row] for row in readable]
    progress = min(1.0, raw.tell() / file.size) if file.size else 1.0
    return Chunk(
        file.location.label,
        start,
        start,
        end - start,
        rows,
        offsets,
        reasons,
        "csv",
        progress=progress,
    )


def _not_utf8(texts: Any) -> dict[int, str]:
    """Why rows of texts cannot be read, by their positions: a text is not UTF-8."""
    reasons: dict[int, str] = {}
    for name, column in zip(texts.column_names, texts.columns, strict=True):
        if not _is_valid(column):
            for row, data in enumerate(column.cast(pa.binary()).to_pylist()):
                if data.decode(errors="replace").encode() != data:
                    reasons.setdefault(row, f"{name}: {data[:50]!r} is not UTF-8")
    return reasons


def _is_valid(column: Any) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _line_chunks(file: InputFile, size: int, skip: int) -> Iterator[Chunk]:
    data, raw = _stream(file)
    lines: list[bytes] = []
    start = skip
    with io.BufferedReader(data, 1024 * 1024) as buffered:
        for line in buffered:
            if not line.strip():
                continue
            if skip:
                skip -= 1
                continue
            lines.append(line)
            if len(lines) == size:
                yield _line_chunk(file, lines, start, raw)
                start += size
                lines = []
        if lines:
            yield _line_chunk(file, lines, start, raw)


def _line_chunk(file: InputFile, lines: list[bytes], start: int, raw: Any) -> Chunk:
    progress = min(1.0, raw.tell() / file.size) if file.size else 1.0
    count = len(lines)
    return Chunk(file.location.label, start, start, count, lines, range(count), {}, "jsonl", progress=progress)
