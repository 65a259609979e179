"""Conversion of input tensors to the columns and arrays of one model.

Rule of this module: a conversion here is exact, or equal to that of MLflow. MLflow itself converts all others, from
Python values that are the same as in JSON.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_grpc.contract.types import AnyValue, DataType, ListOf, Scalar, Tensor
from mlflow_grpc.payload.tensors import byte_elements
from mlflow_grpc.payload.tensors.byte_elements import object_array
from mlflow_grpc.payload.tensors.datatypes import BYTES
from mlflow_grpc.payload.tensors.reader import InputTensor
from mlflow_grpc.payload.tensors.refusals import refuse_input
from mlflow_grpc.payload.tensors.table import NUMPY, STR, TensorColumn

_MIN_WRAPPED = 2**63
"""Integers from here on are not in every column of integers."""

_DTYPES = {
    DataType.BOOLEAN: np.dtype(bool),
    DataType.INTEGER: np.dtype(np.int32),
    DataType.LONG: np.dtype(np.int64),
    DataType.FLOAT: np.dtype(np.float32),
    DataType.DOUBLE: np.dtype(np.float64),
}
"""The numpy types of columns that tensors of numbers fit."""


def native_column(tensor: InputTensor, column: TensorColumn) -> Any:
    """Returns a column as MLflow's parser would make it: an array, or a list of texts.

    Returns None if the parser itself has to make it.

    Args:
        tensor: The input.
        column: A column of scalars of the model.

    Raises:
        InvalidPayload: The shape has more than a value for each row, or a text is not UTF-8.

    """
    if not isinstance(column.type, Scalar):
        return None
    _check_rows(tensor)
    if tensor.datatype == BYTES:
        is_text = column.type.data_type is DataType.STRING and tensor.content_type in ("", STR, NUMPY)
        return byte_elements.texts(tensor) if is_text else None
    dtype = _DTYPES.get(column.type.data_type)
    return None if dtype is None else converted(tensor.elements, dtype)


def native_array(tensor: InputTensor, column: TensorColumn) -> npt.NDArray[Any] | None:
    """Returns a tensor of numbers in the model's own type; None if MLflow's parser has to convert it.

    The array may be read-only.
    """
    if BYTES in (tensor.datatype, column.datatype) or not isinstance(column.type, Tensor):
        return None
    array = converted(tensor.elements, np.dtype(column.type.dtype))
    return None if array is None else array.reshape(tensor.shape)


def converted(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """Returns numbers in another type, as MLflow's parser casts them; None if its result may differ.

    Floats are rounded, which is MLflow's cast too. Numbers become integers only without a change.
    """
    if array.dtype == dtype:
        return array
    if "b" in (array.dtype.kind, dtype.kind) or (
        array.dtype == np.uint64 and array.size and array.max() >= _MIN_WRAPPED
    ):
        return None
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        if dtype.kind == "f":
            return cast
        limits = np.iinfo(dtype)
        is_within = not array.size or (float(limits.min) <= array.min() and array.max() < float(limits.max) + 1)
        return cast if is_within and np.array_equal(cast, array) else None


def values(tensor: InputTensor, column: TensorColumn) -> list[Any]:
    """Returns a value for each row, as JSON would have it; bytes for a column of bytes.

    Args:
        tensor: The input.
        column: A column of the model that is not a tensor.

    Raises:
        InvalidPayload: The shape or an element does not fit the type of the column.

    """
    if tensor.datatype == BYTES:
        _check_rows(tensor)
        return byte_elements.of_column(tensor, column)
    if isinstance(column.type, ListOf | AnyValue) and len(tensor.shape) > 1:
        return list(tensor.elements.reshape(tensor.shape).tolist())
    _check_rows(tensor)
    return list(tensor.elements.tolist())


def elements(tensor: InputTensor, column: TensorColumn) -> Any:
    """Returns the array for a tensor of the model, with the elements that JSON would have.

    Raises:
        InvalidPayload: An element does not fit the type of the tensor.

    """
    if tensor.datatype != BYTES:
        return tensor.elements.reshape(tensor.shape)
    if column.datatype != BYTES:
        refuse_input(tensor.name, f"it is BYTES, and the model takes {column.datatype}")
    if column.content_type:
        return object_array(byte_elements.array_texts(tensor), tensor.shape)
    return object_array(byte_elements.byte_strings(tensor), tensor.shape)


def undeclared(tensor: InputTensor, *, is_column: bool) -> Any:
    """Returns an input for a model that declares none: the array as it came, or a column of a frame.

    Args:
        tensor: The input.
        is_column: True for a column, whose values are the rows of the tensor.

    Raises:
        InvalidPayload: An element does not have the form of the content type, or is neither text nor described by one.

    """
    if tensor.datatype != BYTES:
        array = tensor.elements.reshape(tensor.shape)
    else:
        array = byte_elements.undeclared_array(tensor)
    if not is_column:
        return array.copy()  # A model may write into its input.
    if array.ndim == 0:
        refuse_input(tensor.name, "a column has a first dimension, which is that of the rows")
    if array.ndim == 1 or array.shape[1:] == (1,):
        return array.reshape(-1).copy()
    return array.tolist()


def _check_rows(tensor: InputTensor) -> None:
    if len(tensor.shape) != 1 and tensor.shape[1:] != (1,):
        refuse_input(
            tensor.name,
            f"its shape is {list(tensor.shape)}, and a column has a value for each row: [rows, 1] or [rows]",
        )
