"""Writers of the output: Parquet, CSV, JSON lines and Arrow.

Rule of this module: tables come in one schema and in order, and go out as they come.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mlflow_grpc_client._score.columns import is_json, json_bytes, json_text

if TYPE_CHECKING:
    # Only for annotations; typing has it from Python 3.11 on.
    from typing_extensions import Self

ROW_GROUP_ROWS = 128 * 1024
"""Rows of a row group of Parquet and of a record batch of Arrow."""

Writer = AbstractContextManager[Any]
"""Has a method `write_table`."""


def writer(format_name: str, stream: Any, schema: Any) -> Writer:
    """The writer of a format to an open stream."""
    match format_name:
        case "parquet":
            return pyarrow.parquet.ParquetWriter(stream, schema)  # type: ignore[no-any-return]
        case "arrow":
            return pa.ipc.new_file(stream, schema)  # type: ignore[no-any-return]
        case "csv":
            return CsvWriter(stream, schema)
    return LinesWriter(stream, schema)


class CsvWriter:
    """CSV with a header. Lists and structs are JSON texts, bytes base64, nulls empty."""

    def __init__(self, stream: Any, schema: Any) -> None:
        self._schema = pa.schema([pa.field(field.name, _csv_type(field.type)) for field in schema])
        self._writer = pyarrow.csv.CSVWriter(stream, self._schema)

    def write_table(self, table: Any) -> None:
        """Writes rows."""
        arrays = [
            column.cast(field.type) if not _is_written_as_json(column.type) else _json_texts(column)
            for column, field in zip(table.columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(arrays, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _csv_type(data_type: Any) -> Any:
    if pa.types.is_dictionary(data_type):
        return _csv_type(data_type.value_type)
    return pa.string() if _is_written_as_json(data_type) or pa.types.is_null(data_type) else data_type


def _is_written_as_json(data_type: Any) -> bool:
    is_bytes = pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type)
    return bool(pa.types.is_nested(data_type) or is_bytes)


def _json_texts(column: Any) -> Any:
    """Values as JSON; bytes as base64 without quotation marks."""
    texts = [json_text(value) for value in column.to_pylist()]
    if not pa.types.is_nested(column.type):
        texts = [text and text.strip('"') for text in texts]
    return pa.array(texts, pa.string())


class LinesWriter:
    """JSON lines: an object for each row."""

    def __init__(self, stream: Any, schema: Any) -> None:
        self._stream = stream
        self._json = [field.name for field in schema if is_json(field)]

    def write_table(self, table: Any) -> None:
        """Writes rows."""
        rows = table.to_pylist()
        if self._json:
            import orjson

            for row in rows:
                row.update((name, orjson.Fragment(row[name])) for name in self._json if row[name] is not None)
        self._stream.write(b"".join(json_bytes(row) + b"\n" for row in rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing: who opened the stream closes it."""
