"""Conversion of Python values for scalar fields.

Rule of this module: a value that a field cannot hold exactly is an error with the field's path. Only a 32-bit float is
rounded. numpy and pandas are not imported.
"""

import datetime as dt
import math
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any, NoReturn

from _mlflow_grpc_protocol.scalars import INTEGER_BOUNDS
from _mlflow_grpc_protocol.shapes import EnumShape, ScalarShape
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import tensors


class _Absent:
    """Marks a row that does not have a column."""


ABSENT = _Absent()

_NEVER_MISSING = frozenset({bool, int, float, str, bytes})
"""Types without a value that means a missing value."""


def missing_indexes(values: Any, *, nan_is_null: bool = False) -> list[int]:
    """Indexes of missing values; with `nan_is_null` NaN is missing, too, which is pandas' mark."""
    types = set(map(type, values))
    if types <= _NEVER_MISSING:
        return [index for index, value in enumerate(values) if value != value] if nan_is_null else []  # noqa: PLR0124
    if types <= {str, type(None)}:
        return [index for index, value in enumerate(values) if value is None]
    return [
        index
        for index, value in enumerate(values)
        if is_missing(value) or (nan_is_null and isinstance(value, float) and math.isnan(value))
    ]


def is_missing(value: Any) -> bool:
    """Returns True if a value is ABSENT, None, pandas' NA or NaT. NaN is a number here; see `nan_means_null`."""
    if value is None or value is ABSENT:
        return True
    if isinstance(value, (dt.datetime, library("numpy", "datetime64"))):
        return bool(value != value)  # noqa: PLR0124 - NaT
    # The placeholder for a library that is absent is a tuple.
    return not isinstance(value, tuple) and value is library("pandas", "NA")


def scalar(value: Any, shape: ScalarShape | EnumShape, path: str) -> Any:
    """A value for a scalar field, exactly as it was. Raises what `writer.fill` raises."""
    value = builtin_value(value)
    if isinstance(shape, EnumShape):
        number = shape.numbers.get(value) if isinstance(value, str) else None
        return number or refuse(path, f"{value!r} is not one of {', '.join(map(repr, shape.numbers))}")
    return _CONVERTERS[shape.type](value, shape.type, path)


def builtin_value(value: Any) -> Any:
    """The value of an Enum's member or of a numpy scalar. numpy's times stay: some would become bare integers."""
    if isinstance(value, Enum):
        value = value.value
    value = scalar_from_array(value)
    if not isinstance(value, library("numpy", "generic")):
        return value
    times = (library("numpy", "datetime64"), library("numpy", "timedelta64"))
    item = value.item()
    return value if isinstance(value, times) and not isinstance(item, dt.date) else item


def scalar_from_array(value: Any) -> Any:
    """The value in a numpy array without dimensions; a masked array stays."""
    if getattr(value, "ndim", None) != 0 or not isinstance(value, library("numpy", "ndarray")):
        return value
    return value if isinstance(value, library("numpy.ma", "MaskedArray")) else value[()]


def _integer(value: Any, field_type: int, path: str) -> int:
    number = _number(value, path, "a whole number")
    if isinstance(number, float) and not number.is_integer():
        refuse(path, f"{number!r} is not a whole number")
    tensors.check_bounds(number, INTEGER_BOUNDS[field_type], path)
    return int(number)


def _float(value: Any, field_type: int, path: str) -> float:
    value = _number(value, path, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value and not math.isnan(number):
        refuse(path, f"{value} is not a float: whole numbers are up to 2^53, and some beyond")
    return tensors.single(number, path) if field_type == FieldDescriptor.TYPE_FLOAT else number


def _number(value: Any, path: str, expected: str) -> float:
    if isinstance(value, bool):
        raise wrong_type(path, value, expected)
    number: float = instance(value, int | float, path, expected)
    return number


_CONVERTERS: dict[int, Callable[[Any, int, str], Any]] = {
    FieldDescriptor.TYPE_BOOL: lambda value, _, path: instance(value, bool, path, "a bool"),
    FieldDescriptor.TYPE_STRING: lambda value, _, path: string(value, path),
    FieldDescriptor.TYPE_BYTES: lambda value, _, path: bytes(
        instance(value, bytes | bytearray | memoryview, path, "bytes")
    ),
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_DOUBLE: _float,
    **dict.fromkeys(INTEGER_BOUNDS, _integer),
}


def string(value: Any, path: str) -> str:
    """A text. Dates, times of day and UUIDs have a text form."""
    if isinstance(value, dt.date | dt.time) and not isinstance(value, dt.datetime):
        value = value.isoformat()
    elif isinstance(value, uuid.UUID):
        value = str(value)
    text = instance(value, str, path, "a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        refuse(path, "the text has a lone surrogate, which UTF-8 cannot carry")
    return str(text)


def instance(value: Any, types: Any, path: str, expected: str) -> Any:
    """A value of the types; raises TypeError for any other."""
    if not isinstance(value, types):
        raise wrong_type(path, value, expected)
    return value


def check_key(key: Any, path: str) -> None:
    """Raises TypeError for a key of a dict that is not a text."""
    instance(key, str, f"{path}: the key {key!r}", "a text")


def wrong_type(path: str, value: Any, expected: str) -> TypeError:
    """The error for a value of a wrong type."""
    return TypeError(f"{path}: {type_label(value)} is not {expected}")


def refuse(path: str, reason: str) -> NoReturn:
    """Raises ValueError for a value that a field cannot hold."""
    raise ValueError(f"{path}: {reason}")
