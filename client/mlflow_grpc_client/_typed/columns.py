"""Conversion of rows into the columns of a batch, and of the columns of an answer into rows.

Rule of this module: it divides rows into columns and joins them; `column_writer` writes their values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from _mlflow_grpc_protocol.shapes import (
    FieldShape,
    MessageShape,
    TensorShape,
    ValueShape,
    WrapperShape,
)
from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import reader, writer
from mlflow_grpc_client._typed.contract import accepts_dicts
from mlflow_grpc_client._typed.scalars import ABSENT
from mlflow_grpc_client._typed.writer import find_field

Columns = dict[str, Any]
"""Columns by the names of fields in protobuf: lists, arrays, Series or pyarrow's columns, with a value for each row."""


@dataclass(frozen=True)
class NamedColumns:
    """Rows in columns, by the names that fields have in the model or in protobuf, or by their positions."""

    values: Mapping[Any, Any]


def is_batch(data: Any) -> bool:
    """Returns True if data is rows, not a single record."""
    if isinstance(data, library("numpy", "ndarray")):
        return bool(data.ndim)
    tables = (library("pandas", "DataFrame"), library("pandas", "Series"), library("pyarrow", "Table"))
    return isinstance(data, (list, tuple, NamedColumns, *tables))


def columns_of(rows: Any, record: MessageShape) -> tuple[int, Columns]:
    """The number of rows, and their columns.

    Rows are a list of dicts, a DataFrame, a pyarrow.Table, NamedColumns, or an array or nested list for a tensor or
    unnamed columns. If the sole column is unnamed and accepts dicts, each dict is a value of it. Raises TypeError for
    something else, and ValueError for rows or columns of other lengths.
    """
    if isinstance(rows, library("pandas", "Series")):
        rows = rows.to_frame()
    if isinstance(rows, library("pandas", "DataFrame")):
        names = _field_names(list(rows.columns), record)
        return len(rows), {name: rows.iloc[:, index] for index, name in enumerate(names)}
    if isinstance(rows, library("pyarrow", "Table")):
        names = _field_names(rows.column_names, record)
        return len(rows), {name: rows.column(index) for index, name in enumerate(names)}
    if isinstance(rows, NamedColumns):
        names = _field_names(list(rows.values), record)
        return _count_of(rows), dict(zip(names, rows.values.values(), strict=True))
    if not len(rows):
        return 0, {}
    sole = record.sole_unnamed_field
    if all(isinstance(row, Mapping) for row in rows) and not (sole is not None and accepts_dicts(sole)):
        return len(rows), _columns_of_dicts(rows, record)
    if sole is not None:
        return len(rows), {sole.name: _unnest(rows, sole)}
    for index, row in enumerate(rows):
        if not isinstance(row, (Mapping, list, tuple, library("numpy", "ndarray"), library("numpy", "generic"))):
            _refuse_row(row, f"[{index}]: ")
    if any(column.model_name for column in record.fields):
        raise TypeError(
            f"the model's columns have names, {type_label(rows)} has none: give dicts or a DataFrame; "
            f"there are: {', '.join(column.label for column in record.fields)}"
        )
    return len(rows), _unnamed_columns(rows, record)


def records_of(frame: Any, record: MessageShape) -> Iterator[dict[str, Any]]:
    """The rows of a DataFrame as records by the names of fields in protobuf. Raises what `columns_of` raises."""
    names = _field_names(list(frame.columns), record)
    return (dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None))


def _count_of(rows: NamedColumns) -> int:
    counts = {name: len(values) for name, values in rows.values.items()}
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ValueError(f"the columns have different numbers of values: {lengths}")
    return next(iter(counts.values()), 0)


def _field_names(labels: list[Any], record: MessageShape) -> list[str]:
    """The field name of each column of a table."""
    if labels == list(range(len(labels))) and not any(column.model_name for column in record.fields):
        _check_width(len(labels), record)
        labels = [column.name for column in record.fields]
    names: list[str] = []
    for label in labels:
        column = find_field(record, label)
        if column.name in names:
            raise TypeError(f"the rows have several columns for {column.label!r}")
        names.append(column.name)
    return names


def _columns_of_dicts(rows: Any, record: MessageShape) -> Columns:
    columns: Columns = {}
    by_key: Columns = {}
    for index, row in enumerate(rows):
        for key, value in row.items():
            values = by_key.get(key)
            if values is None:
                column = find_field(record, key, f"[{index}]")
                values = by_key[key] = columns.setdefault(column.name, [ABSENT] * len(rows))
            values[index] = value
    if len(by_key) > len(columns):  # Rows use both names of a field, which is an error within a row only.
        for index, row in enumerate(rows):
            names = [find_field(record, key).name for key in row]
            if duplicates := [name for name in set(names) if names.count(name) > 1]:
                raise writer.given_twice(f"[{index}].{duplicates[0]}")
    return columns


def _unnamed_columns(rows: Any, record: MessageShape) -> Columns:
    if isinstance(rows, library("numpy", "ndarray")) and rows.ndim == 2:  # noqa: PLR2004
        _check_width(rows.shape[1], record)
        return {column.name: rows[:, index] for index, column in enumerate(record.fields)}
    for row in rows:
        if not isinstance(row, (list, tuple, library("numpy", "ndarray"))):
            _refuse_row(row)
        _check_width(len(row), record)
    return {column.name: [row[index] for row in rows] for index, column in enumerate(record.fields)}


def _refuse_row(row: Any, path: str = "") -> NoReturn:
    raise TypeError(f"{path}{type_label(row)} is not a row: give dicts, a DataFrame or lists of values")


def _check_width(width: int, record: MessageShape) -> None:
    if width != len(record.fields):
        raise ValueError(f"a row has {width} values, the model takes {len(record.fields)}")


def _unnest(rows: Any, sole: FieldShape) -> Any:
    """The values of the sole column; rows of one value may be given as lists of length 1."""
    if not sole.is_singular or isinstance(sole.shape, TensorShape | WrapperShape | ValueShape):
        return rows
    if isinstance(rows, library("numpy", "ndarray")):
        return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows  # noqa: PLR2004
    return [row[0] if isinstance(row, list | tuple) and len(row) == 1 else row for row in rows]


def rows_of(message: Any, record: MessageShape) -> list[Any]:
    """The answers in a batch's output: dicts, or bare values if the sole column is unnamed.

    The model sets their number. A forecast can have more or fewer rows than its input.
    """
    columns = of_one_length({column.label: values_in(message, column) for column in record.fields})
    if record.sole_unnamed_field is not None:
        column: list[Any]
        (column,) = columns.values()
        return column
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def of_one_length(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns of an output, where one that the server left out has a null for each row.

    Raises DecodeError if they have different lengths.
    """
    count = max(map(len, columns.values()), default=0)
    columns = {label: values if len(values) else [None] * count for label, values in columns.items()}
    for label, values in columns.items():
        if len(values) != count:
            raise DecodeError(f"the column {label} has {len(values)} values for {count} rows")
    return columns


def values_in(message: Any, column: FieldShape) -> list[Any]:
    """The values of a column of an output, None for null."""
    if column.is_singular:
        values = reader.read(message, column)
        values = values if isinstance(values, list) else []
    else:
        values = reader.read_values(getattr(message, column.name), column.shape)
    for index in getattr(message, column.null_rows) if column.null_rows else ():
        if index < len(values):
            values[index] = None
    return values
