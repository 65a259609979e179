"""Output tensors of predicted values: numbers, texts, bytes and times, or the JSON of what no tensor holds.

Rule of this module: values never change. A tensor has the declared datatype if that holds the values exactly, and
otherwise the datatype of the values.
"""

import contextlib
import datetime
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_grpc.contract.types import AnyValue
from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.protobuf.values import is_nothing
from mlflow_grpc.payload.tensors.datatypes import BYTES, DATATYPES, OF_DTYPE
from mlflow_grpc.payload.tensors.table import DATETIME, JSON, STR, TensorColumn

_MAX_EXACT = 2**53
_TIMES = (datetime.date, datetime.time, np.datetime64)  # A datetime and a pandas Timestamp are dates.
_NUMBERS = {bool, int, float, type(None)}


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output to write."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Any
    """An array in its shape, or a list of bytes for BYTES."""
    content_type: str = ""


def column_tensor(column: TensorColumn, rows: list[Any]) -> OutputTensor:
    """Returns the tensor of an output from its values, one for each row."""
    if column.is_tensor:
        try:
            array = np.array(rows)
        except ValueError:  # Rows of different shapes.
            return _json_tensor(column.name, rows)
        if array.dtype in OF_DTYPE and _holds(array, rows):
            return number_tensor(column.name, array, column)
        flat = value_tensor(column.name, np.array(rows, dtype=object).ravel().tolist(), column)
        return OutputTensor(column.name, flat.datatype, array.shape, flat.elements, flat.content_type)
    if isinstance(column.type, AnyValue) or column.content_type == JSON:
        return _json_tensor(column.name, rows)
    return value_tensor(column.name, rows, column, is_column=True)


def _holds(array: npt.NDArray[Any], rows: list[Any]) -> bool:
    """Returns True if numpy has made an array of rows without a change, such as that of True to 1.0."""
    if all(isinstance(row, np.ndarray) and row.dtype == array.dtype for row in rows):
        return True
    values = map(_plain, np.array(rows, dtype=object).ravel().tolist())
    return all(
        isinstance(value, bool) == isinstance(element, bool) and (value == element or value != value)  # noqa: PLR0124
        for value, element in zip(values, array.ravel().tolist(), strict=True)
    )


def number_tensor(
    name: str, array: npt.NDArray[Any], column: TensorColumn | None, *, is_column: bool = False
) -> OutputTensor:
    """Returns a tensor of numbers, in the declared datatype if that changes no value."""
    declared = None if column is None or column.datatype == BYTES else DATATYPES[column.datatype].dtype
    if declared is not None and declared != array.dtype and _is_exact(array, declared):
        array = array.astype(declared)
    is_column = is_column or (column is not None and not column.is_tensor)
    shape = (len(array), 1) if is_column and array.ndim == 1 else array.shape
    return OutputTensor(name, OF_DTYPE[array.dtype], shape, array)


def _is_exact(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if "b" in (array.dtype.kind, dtype.kind):
        return False
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        back = cast.astype(array.dtype)
        is_same = np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
        if not is_same or not array.size or cast.dtype.kind == array.dtype.kind:
            return bool(is_same)
        # A cast between integers and floats may wrap in both directions.
        return bool(abs(float(array.min())) <= _MAX_EXACT and abs(float(array.max())) <= _MAX_EXACT)


def value_tensor(name: str, values: list[Any], column: TensorColumn | None, *, is_column: bool = False) -> OutputTensor:
    """Returns a tensor of single values of any type.

    Args:
        name: Name of the output.
        values: The values.
        column: The declared output; None if there is none.
        is_column: True for the shape [rows, 1], False for [rows].

    """
    values = [_plain(value) for value in values]
    types = set(map(type, values))
    shape = (len(values), 1) if is_column else (len(values),)
    if types and types <= _NUMBERS and (array := _numbers(values, types)) is not None:
        tensor = number_tensor(name, array, column, is_column=is_column)
        return OutputTensor(name, tensor.datatype, shape, tensor.elements)
    if types <= {str}:
        with contextlib.suppress(UnserializableOutput):  # JSON has a form for half a surrogate pair.
            return OutputTensor(name, BYTES, shape, [utf8(value) for value in values], STR)
    if types <= {bytes, bytearray}:
        return OutputTensor(name, BYTES, shape, [bytes(value) for value in values])
    if all(isinstance(value, _TIMES) for value in values):
        return OutputTensor(name, BYTES, shape, [_iso(value) for value in values], DATETIME)
    return OutputTensor(name, BYTES, shape, [_json(value) for value in values], JSON)


def _plain(value: Any) -> Any:
    """Returns a numpy scalar as a Python value, pandas' NA as None, and the value of an enumeration."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        return value.item()
    return None if is_nothing(value) and not isinstance(value, _TIMES) else value


def _numbers(values: list[Any], types: set[type]) -> npt.NDArray[Any] | None:
    """Returns booleans, integers or floats as an array; None if no array holds them all."""
    if types == {bool}:
        return np.array(values, dtype=bool)
    if types == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            return None
    has_float = float in types and bool not in types
    integers_are_exact = all(abs(value) <= _MAX_EXACT for value in values if type(value) is int)
    return np.array(values, dtype=np.float64) if has_float and integers_are_exact else None


def _json_tensor(name: str, values: list[Any]) -> OutputTensor:
    return OutputTensor(name, BYTES, (len(values), 1), [_json(value) for value in values], JSON)


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_json_default).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnserializableOutput("The model returned a value that has no JSON form.") from error


def _json_default(value: Any) -> Any:
    from mlflow_grpc.hosting.pyfunc import internals  # Late, because it imports MLflow.

    return value.value if isinstance(value, Enum) else internals.json_default(value)


def utf8(text: str) -> bytes:
    """Returns the bytes of a text; raises UnserializableOutput if it has half a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UnserializableOutput("The model returned a text that is not valid Unicode.") from error


def _iso(moment: Any) -> bytes:
    return (str(moment) if isinstance(moment, np.datetime64) else str(moment.isoformat())).encode()
