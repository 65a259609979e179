"""Arrow columns as numpy arrays, without a Python object for each number.

Rule of this module: it returns None for a column that numpy's type does not hold exactly. It refuses nothing.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from _mlflow_grpc_protocol.json_values import MAX_EXACT_INTEGER
from numpy.lib.stride_tricks import as_strided

from mlflow_grpc.contract.types import DataType
from mlflow_grpc.payload.arrow import predicates
from mlflow_grpc.payload.arrow.values import in_nanoseconds, moments

_DTYPES = {
    DataType.BOOLEAN: np.dtype(np.bool_),
    DataType.INTEGER: np.dtype(np.int32),
    DataType.LONG: np.dtype(np.int64),
    DataType.FLOAT: np.dtype(np.float32),
    DataType.DOUBLE: np.dtype(np.float64),
}


def column(array: pa.Array, data_type: DataType) -> Any:
    """Returns a column as an array of its own type in the model, or a list of texts.

    Null is NaN in a column of floats, NaT in one of points in time, and None in one of texts.

    Args:
        array: The column.
        data_type: Type in the model.

    Returns:
        The column; None if it has to be converted value by value.

    """
    if data_type is DataType.STRING:
        return _texts(array)
    if data_type is DataType.DATETIME:
        return in_nanoseconds(moments(array)) if predicates.is_moment(array.type) and len(array) else None
    if data_type is DataType.BOOLEAN and not pa.types.is_boolean(array.type):
        return None
    dtype = _DTYPES.get(data_type)
    return None if dtype is None else numbers(array, dtype)


def numbers(array: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """Returns a column of numbers or booleans in a dtype; None if the dtype does not hold all values exactly.

    A column of doubles without nulls is not copied.
    """
    arrow = array.type
    if not (predicates.is_numeric(arrow) or pa.types.is_boolean(arrow)):
        return None
    if pa.types.is_boolean(arrow) != (dtype.kind == "b") or (array.null_count and not pa.types.is_floating(arrow)):
        return None
    values = _numbers_of(array)
    if values.dtype == dtype:
        return values
    is_long = values.dtype in (np.int64, np.uint64)  # numpy casts them to doubles, which do not hold all of them.
    if np.can_cast(values.dtype, dtype, "safe") and not is_long:
        return values.astype(dtype)
    if values.dtype.kind in "iu" and dtype == np.float64 and values.size:
        is_exact = max(-int(values.min()), int(values.max())) <= MAX_EXACT_INTEGER
        return values.astype(dtype) if is_exact else None
    return None


def _numbers_of(array: pa.Array) -> npt.NDArray[Any]:
    if array.null_count or pa.types.is_boolean(array.type) or not len(array):
        values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return values
    # `to_numpy` releases the interpreter for each column, and waits to get it back from the threads of other batches.
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def stacked(columns: list[Any]) -> Any:
    """Returns columns as the rows of one array that shares their memory, if they are at equal distances in a buffer.

    Arrow puts the columns of a batch into one body. Without nulls, those of one type are as far apart as they are long.

    Args:
        columns: Arrays or lists.

    """
    first = columns[0]
    if len(columns) == 1 or not all(
        isinstance(column, np.ndarray) and column.dtype == first.dtype and column.flags.c_contiguous
        for column in columns
    ):
        return columns
    addresses = [column.__array_interface__["data"][0] for column in columns]
    distance = addresses[1] - addresses[0]
    if distance < first.nbytes or any(end - start != distance for start, end in pairwise(addresses)):
        return columns
    body = first.base.parent if isinstance(first.base, pa.Buffer) else None
    if body is None or addresses[0] < body.address or addresses[-1] + first.nbytes > body.address + body.size:
        return columns
    return as_strided(first, (len(columns), len(first)), (distance, first.itemsize), writeable=False)


def _texts(array: pa.Array) -> list[str | None] | None:
    if pa.types.is_dictionary(array.type):
        texts = array.dictionary
        if not predicates.is_text(texts.type):
            return None
        values = texts.to_pylist()
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if not predicates.is_text(array.type):
        return None
    texts_of_rows: list[str | None] = array.to_pylist()
    return texts_of_rows


def tensor(array: pa.Array, row_shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    """Returns a column of nested lists as one array; None if a value is null, or lists have different lengths.

    Args:
        array: The column.
        row_shape: Shape of a row in the model; -1 for a dimension of any size.

    """
    shape = [len(array)]
    for expected in row_shape:
        if array.null_count or not predicates.is_list(array.type):
            return None
        items = array.flatten()
        size, remainder = divmod(len(items), max(len(array), 1))
        if remainder or expected not in (-1, size) or not _are_of_length(array, size):
            return None
        shape.append(size)
        array = items
    if array.null_count or predicates.is_list(array.type):
        return None
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.reshape(shape)


def _are_of_length(array: pa.Array, size: int) -> bool:
    if pa.types.is_fixed_size_list(array.type):
        return bool(array.type.list_size == size)
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    return bool((np.diff(offsets) == size).all())
