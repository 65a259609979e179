"""The columns of a batch's output as arrays.

Rule of this module: only callers that have numpy import it. A column has the values that `columns.rows_of` has in rows.
"""

from typing import Any

import numpy as np
from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape, ScalarShape, TensorShape
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._typed import columns

_DTYPES = {
    FieldDescriptor.TYPE_BOOL: np.dtype(bool),
    FieldDescriptor.TYPE_FLOAT: np.dtype(np.float32),
    FieldDescriptor.TYPE_DOUBLE: np.dtype(np.float64),
    FieldDescriptor.TYPE_INT32: np.dtype(np.int32),
    FieldDescriptor.TYPE_INT64: np.dtype(np.int64),
    FieldDescriptor.TYPE_UINT32: np.dtype(np.uint32),
    FieldDescriptor.TYPE_UINT64: np.dtype(np.uint64),
}


def columns_in(message: Any, record: MessageShape) -> dict[str, Any]:
    """The columns of a batch's output by the names of `FieldShape.label`. Raises what `columns.rows_of` raises.

    Numbers and booleans are arrays, masked where a row has no value; other columns are lists with None for these.
    Tensors are arrays of the model's shape.
    """
    return columns.of_one_length({column.label: _column(message, column) for column in record.fields})


def _column(message: Any, column: FieldShape) -> Any:
    if isinstance(column.shape, TensorShape) and column.is_singular:
        return _tensor(message, column, column.shape.element)
    if not isinstance(column.shape, ScalarShape) or column.shape.type not in _DTYPES:
        return columns.values_in(message, column)
    values = np.array(getattr(message, column.name), _DTYPES[column.shape.type])
    nulls = np.array(getattr(message, column.null_rows) if column.null_rows else (), np.uint64)
    if not len(nulls):
        return values
    mask = np.zeros(len(values), bool)
    mask[nulls[nulls < len(values)]] = True
    return np.ma.MaskedArray(values, mask)


def _tensor(message: Any, column: FieldShape, element: ScalarShape) -> Any:
    dtype = _DTYPES.get(element.type)
    values = columns.values_in(message, column) if dtype is None else None
    if values is not None:
        return values
    tensor = getattr(message, column.name)
    data, shape = np.array(tensor.data, dtype), tuple(tensor.shape)
    return data.reshape(shape) if shape and np.prod(shape) == len(data) else columns.values_in(message, column)
