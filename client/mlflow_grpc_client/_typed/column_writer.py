"""Columns of values in the request of a batch.

Rule of this module: values follow the rules of `writer`; the numbers and texts in the columns of numpy, pandas and
pyarrow become Python objects only where their bytes cannot be sent.
"""

from typing import Any, NoReturn

from _mlflow_grpc_protocol.scalars import FLOATS, INTEGER_BOUNDS, row_filler
from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape, ScalarShape, TensorShape, TimestampShape, ValueShape
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._payloads import library
from mlflow_grpc_client._typed import tensors, timestamps, writer
from mlflow_grpc_client._typed.batch_request import BatchRequest
from mlflow_grpc_client._typed.columns import Columns
from mlflow_grpc_client._typed.scalars import ABSENT, missing_indexes
from mlflow_grpc_client._typed.writer import MissingFields, lacks_nan

_NUMBERS = frozenset({FieldDescriptor.TYPE_BOOL, *INTEGER_BOUNDS, *FLOATS})

_NULL_COST = {FieldDescriptor.TYPE_BYTES: 1, FieldDescriptor.TYPE_BOOL: 2, **dict.fromkeys(INTEGER_BOUNDS, 1)}
"""Ranks of types by how MLflow treats a null: it refuses one in columns of rank 1, and reads it as False in rank 2."""


def fill(request: BatchRequest, record: MessageShape, count: int, columns: Columns) -> None:
    """Writes columns into the request of a batch. Raises what `writer.fill` raises."""
    written = set()
    for name, values in columns.items():
        if _put(request, record.by_name[name], values, count):
            written.add(name)
    if absent := [column.label for column in record.fields if column.needs_value and column.name not in written]:
        raise MissingFields(absent)
    if not written:
        # The number of rows is the length of a column: an optional column of nulls can carry it.
        optional = [column for column in record.fields if column.name not in columns and column.null_rows]
        for column in sorted(optional, key=_null_cost)[:1]:
            _put(request, column, [ABSENT] * count, count)


def _null_cost(column: FieldShape) -> int:
    return _NULL_COST.get(column.shape.type, 0) if isinstance(column.shape, ScalarShape) else 0


def _put(request: BatchRequest, column: FieldShape, values: Any, count: int) -> bool:
    """Writes a column. Returns False for a column without any value, which is left out for the server to judge."""
    is_arrow = isinstance(values, (library("pyarrow", "Array"), library("pyarrow", "ChunkedArray")))
    is_series = is_arrow or isinstance(values, library("pandas", "Series"))
    nulls: Any = ()
    if is_arrow:
        # Imported late, because it imports numpy and pyarrow, which this caller has imported.
        from mlflow_grpc_client._typed import arrow

        array = arrow.array_of(values)
        if arrow.put_texts(request, column, array):
            return True
        values, nulls = arrow.values_of(array, may_be_null=bool(column.null_rows) and not column.has_default)
    if isinstance(values, library("numpy", "ndarray")):
        tensors.check_unmasked(values, column.label)
    if column.is_singular:
        _put_tensor(request, column, values)
        return True
    return _put_values(request, column, values, nulls, count, is_series=is_series)


def _put_values(
    request: BatchRequest, column: FieldShape, values: Any, nulls: Any, count: int, *, is_series: bool
) -> bool:
    """Writes a column that is no tensor; see `_put`.

    `nulls` are the indexes of missing values besides those in `values`, for arrays of numbers. In a series, NaN may be
    the mark of a missing value, as in pandas.
    """
    shape, field = column.shape, getattr(request.message, column.name)
    times = timestamps.column_of(values) if isinstance(shape, TimestampShape) else None
    is_json = isinstance(shape, ValueShape)
    is_float = isinstance(shape, ScalarShape) and shape.type in FLOATS
    nan_is_null = is_series and not is_json and (bool(column.null_rows) or not is_float)
    if times is not None:
        points, missing = times
    else:
        if is_series and not isinstance(values, list):
            # A NaN that is an error is found in a list, with its index.
            has_nan_error = nan_is_null and (column.has_default or not column.null_rows)
            values = _array_or_list(values, with_floats=not has_nan_error)
        is_array = isinstance(values, library("numpy", "ndarray")) and values.dtype.kind in "biuf" and values.ndim == 1
        if is_array and isinstance(shape, ScalarShape) and shape.type in _NUMBERS:
            _put_array(request, column, shape, values, nulls, nan_is_null=is_series and bool(column.null_rows))
            return True
        if len(nulls):  # Numbers for a field of another type.
            values = values.tolist()
            for index in nulls.tolist():
                values[index] = None
        missing = missing_indexes(values, nan_is_null=nan_is_null or lacks_nan(shape))
        if is_json:
            missing = [index for index in missing if values[index] is ABSENT]  # Other missing values are null.
    if column.has_default and (indexes := [index for index in missing if times or values[index] is not ABSENT]):
        writer.reject_null(f"{column.label}[{indexes[0]}]")
    if missing and not column.null_rows:
        return False if len(missing) == count else _refuse_missing(column, missing[0])
    if missing:
        getattr(request.message, column.null_rows).extend(missing)
    if times is not None:
        timestamps.extend(field, points)
    else:
        writer.extend(field, shape, values, column.label, missing, row_filler(shape))
    return True


def _put_tensor(request: BatchRequest, column: FieldShape, values: Any) -> None:
    """Writes the tensor of all rows."""
    if isinstance(column.shape, TensorShape) and tensors.put(
        request, column.name, column.shape.element, values, column.label
    ):
        return
    values = values.tolist() if isinstance(values, library("pandas", "Series")) else values
    if isinstance(values, list) and (missing := missing_indexes(values)):
        _refuse_missing(column, missing[0])
    writer.put(request.message, column, values, column.label)


def _refuse_missing(column: FieldShape, index: int) -> NoReturn:
    raise ValueError(f"{column.label}[{index}]: there is no value for this row, and the model needs one")


def _array_or_list(values: Any, *, with_floats: bool) -> Any:
    """The array of a Series of numpy's numbers, or an array of them, else a list."""
    kinds = "biuf" if with_floats else "biu"
    is_array = getattr(values.dtype, "str", "")[1:2] in tuple(kinds)
    if not is_array:
        return values.tolist()
    return values if isinstance(values, library("numpy", "ndarray")) else values.to_numpy()


def _put_array(
    request: BatchRequest, column: FieldShape, shape: ScalarShape, array: Any, nulls: Any, *, nan_is_null: bool
) -> None:
    if nan_is_null and array.dtype.kind == "f":
        is_null = array != array  # noqa: PLR0124 - NaN
        if is_null.any():
            nulls = is_null.nonzero()[0]
            array = array.copy()
            array[is_null] = 0
    if len(nulls):
        getattr(request.message, column.null_rows).extend(nulls.tolist())
    # pandas keeps integers as floats if some rows have none.
    is_whole = shape.type not in INTEGER_BOUNDS or array.dtype.kind in "iu"
    data = tensors.packed(shape, array, column.label) if is_whole else None
    if data is None:
        writer.extend(getattr(request.message, column.name), shape, array.tolist(), column.label)
    else:
        request.add_field(column.name, data)
