"""Conversion of rows into the columns of a batch, and of the columns of an answer into rows.

Rule of this module: values follow the rules of `writer`; the numbers in numpy's and pandas' columns become Python
objects only where their bytes cannot be sent.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from _mlflow_grpc_protocol.scalars import FLOATS, INTEGER_BOUNDS, row_filler
from _mlflow_grpc_protocol.shapes import (
    FieldShape,
    MessageShape,
    ScalarShape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import reader, tensors, timestamps, writer
from mlflow_grpc_client._typed.contract import accepts_dicts
from mlflow_grpc_client._typed.scalars import ABSENT, missing_indexes, scalar
from mlflow_grpc_client._typed.writer import MissingFields, find_field, lacks_nan

_NUMBERS = frozenset({FieldDescriptor.TYPE_BOOL, *INTEGER_BOUNDS, *FLOATS})

_NULL_COST = {FieldDescriptor.TYPE_BYTES: 1, FieldDescriptor.TYPE_BOOL: 2, **dict.fromkeys(INTEGER_BOUNDS, 1)}
"""A rank of types by what MLflow makes of a null: it refuses nulls in columns of rank 1, and reads False in rank 2."""

Columns = dict[str, Any]
"""Columns by the names of fields in protobuf. Each is a list, an array or a Series with a value for each row."""


def is_batch(data: Any) -> bool:
    """Returns True if data is rows, not a single record."""
    if isinstance(data, library("numpy", "ndarray")):
        return bool(data.ndim)
    return isinstance(data, (list, tuple, library("pandas", "DataFrame"), library("pandas", "Series")))


def columns_of(rows: Any, record: MessageShape) -> tuple[int, Columns]:
    """The number of rows, and their columns.

    Args:
        rows: A list of dicts, a DataFrame, or an array or nested list for a tensor or unnamed columns. If the sole
            column is unnamed and accepts dicts, each dict is a value of it.
        record: The fields of a row.

    Raises:
        TypeError: Something is not a row of this record.
        ValueError: The number of values in a row is not that of the model's unnamed columns.

    """
    if isinstance(rows, library("pandas", "Series")):
        rows = rows.to_frame()
    if isinstance(rows, library("pandas", "DataFrame")):
        names = _frame_fields(rows, record)
        return len(rows), {name: rows.iloc[:, index] for index, name in enumerate(names)}
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
    names = _frame_fields(frame, record)
    return (dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None))


def _frame_fields(frame: Any, record: MessageShape) -> list[str]:
    """The field name of each column of a DataFrame."""
    labels: list[Any] = list(frame.columns)
    if labels == list(range(len(labels))) and not any(column.model_name for column in record.fields):
        _check_width(len(labels), record)
        labels = [column.name for column in record.fields]
    names: list[str] = []
    for label in labels:
        column = find_field(record, label)
        if column.name in names:
            raise TypeError(f"the DataFrame has several columns for {column.label!r}")
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


def fill(message: Any, record: MessageShape, count: int, columns: Columns) -> None:
    """Writes columns into the message of a batch.

    Raises:
        TypeError: A value has a wrong type.
        ValueError: A column cannot hold a value, or lacks a required value.
        MissingFields: A required column is missing.

    """
    written = set()
    for name, values in columns.items():
        if _put(message, record.by_name[name], values, count):
            written.add(name)
    if absent := [column.label for column in record.fields if column.needs_value and column.name not in written]:
        raise MissingFields(absent)
    if not written:
        # The number of rows is the length of a column: an optional column of nulls can carry it.
        optional = [column for column in record.fields if column.name not in columns and column.null_rows]
        for column in sorted(optional, key=_null_cost)[:1]:
            _put(message, column, [ABSENT] * count, count)


def _null_cost(column: FieldShape) -> int:
    return _NULL_COST.get(column.shape.type, 0) if isinstance(column.shape, ScalarShape) else 0


def _put(message: Any, column: FieldShape, values: Any, count: int) -> bool:
    """Writes a column. Returns False for a column without any value, which is left out for the server to judge."""
    shape, field = column.shape, getattr(message, column.name)
    if isinstance(values, library("numpy", "ndarray")):
        tensors.check_unmasked(values, column.label)
    if column.is_singular:
        _put_tensor(message, column, values)
        return True
    times = timestamps.column_of(values) if isinstance(shape, TimestampShape) else None
    is_series, is_json = isinstance(values, library("pandas", "Series")), isinstance(shape, ValueShape)
    is_float = isinstance(shape, ScalarShape) and shape.type in FLOATS
    nan_is_null = is_series and not is_json and (bool(column.null_rows) or not is_float)
    if times is not None:
        points, missing = times
    else:
        if is_series:
            # A NaN that is an error is found in a list, with its index.
            has_nan_error = nan_is_null and (column.has_default or not column.null_rows)
            values = _array_or_list(values, with_floats=not has_nan_error)
        is_array = isinstance(values, library("numpy", "ndarray")) and values.dtype.kind in "biuf" and values.ndim == 1
        if is_array and isinstance(shape, ScalarShape) and shape.type in _NUMBERS:
            _put_array(message, column, shape, values, column.null_rows if is_series else "")
            return True
        missing = missing_indexes(values, nan_is_null=nan_is_null or lacks_nan(shape))
        if is_json:
            missing = [index for index in missing if values[index] is ABSENT]  # Other missing values are null.
    if column.has_default and (nulls := [index for index in missing if times or values[index] is not ABSENT]):
        writer.reject_null(f"{column.label}[{nulls[0]}]")
    if missing and not column.null_rows:
        return False if len(missing) == count else _refuse_missing(column, missing[0])
    if missing:
        getattr(message, column.null_rows).extend(missing)
    if times is not None:
        timestamps.extend(field, points)
    else:
        writer.extend(field, shape, values, column.label, missing, row_filler(shape))
    return True


def _put_tensor(message: Any, column: FieldShape, values: Any) -> None:
    """Writes the tensor of all rows."""
    values = values.tolist() if isinstance(values, library("pandas", "Series")) else values
    if isinstance(values, list) and (missing := missing_indexes(values)):
        _refuse_missing(column, missing[0])
    writer.put(message, column, values, column.label)


def _refuse_missing(column: FieldShape, index: int) -> NoReturn:
    raise ValueError(f"{column.label}[{index}]: there is no value for this row, and the model needs one")


def _array_or_list(series: Any, *, with_floats: bool) -> Any:
    """The array of a Series of numpy's numbers, else a list."""
    kinds = "biuf" if with_floats else "biu"
    return series.to_numpy() if getattr(series.dtype, "str", "")[1:2] in tuple(kinds) else series.tolist()


def _put_array(message: Any, column: FieldShape, shape: ScalarShape, array: Any, nulls_name: str) -> None:
    if nulls_name and array.dtype.kind == "f":
        is_null = array != array  # noqa: PLR0124 - NaN
        if is_null.any():
            getattr(message, nulls_name).extend(is_null.nonzero()[0].tolist())
            array = array.copy()
            array[is_null] = 0
    if shape.type in INTEGER_BOUNDS:  # pandas keeps integers as floats if some rows have none.
        writer.extend(getattr(message, column.name), shape, array.tolist(), column.label)
    else:
        tensors.extend(message, column.name, shape, array, column.label, scalar)


def rows_of(message: Any, record: MessageShape) -> list[Any]:
    """The answers in a batch's output: dicts, or bare values if the sole column is unnamed.

    The model sets their number. A forecast can have more or fewer rows than its input.

    Raises:
        DecodeError: The columns have different lengths.

    """
    values_of = {column.label: _read(message, column) for column in record.fields}
    count = max(map(len, values_of.values()), default=0)
    columns = {label: values or [None] * count for label, values in values_of.items()}
    for label, values in columns.items():
        if len(values) != count:
            raise DecodeError(f"the column {label} has {len(values)} values for {count} rows")
    if record.sole_unnamed_field is not None:
        (column,) = columns.values()
        return column
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read(message: Any, column: FieldShape) -> list[Any]:
    if column.is_singular:
        values = reader.read(message, column)
        values = values if isinstance(values, list) else []
    else:
        values = reader.read_values(getattr(message, column.name), column.shape)
    for index in getattr(message, column.null_rows) if column.null_rows else ():
        if index < len(values):
            values[index] = None
    return values
