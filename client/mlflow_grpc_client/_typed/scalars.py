"""Conversion of Python values for scalar fields.

Rule of this module: a value that a field cannot hold exactly is an error with the field's path. Only a 32-bit float is
rounded. numpy and pandas are not imported.
"""

import datetime as dt
import math
import uuid
from enum import Enum
from typing import Any, NoReturn

from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import tensors
from mlflow_grpc_client._typed.contract import TypeCode, ValueType


def is_missing(value: Any) -> bool:
    """Returns True if a value is None, pandas' NA or NaT. NaN is a number here; see `nan_means_null`."""
    if value is None:
        return True
    if isinstance(value, (dt.datetime, library("numpy", "datetime64"))):
        return bool(value != value)  # noqa: PLR0124 - NaT
    # The placeholder for a library that is absent is a tuple.
    return not isinstance(value, tuple) and value is library("pandas", "NA")


def scalar(value: Any, value_type: ValueType, path: str) -> Any:
    """A value for a scalar field, exactly as it was; errors as of `writer.fill`."""
    value = python_value(value)
    match value_type.code:
        case TypeCode.BOOLEAN:
            return value if isinstance(value, bool) else mistype(path, value, "a bool")
        case TypeCode.INTEGER:
            return _integer(value, value_type.bounds, path)
        case TypeCode.FLOAT | TypeCode.DOUBLE:
            return _float(value, value_type.code, path)
        case TypeCode.STRING:
            return string(value, path)
        case TypeCode.BYTES:
            is_bytes = isinstance(value, bytes | bytearray | memoryview)
            return bytes(value) if is_bytes else mistype(path, value, "bytes")
        case _:
            number = value_type.enum_numbers.get(value) if isinstance(value, str) else None
            return number or refuse(path, f"{value!r} is not one of {', '.join(map(repr, value_type.enum_numbers))}")


def python_value(value: Any) -> Any:
    """The value of an Enum's member or of a numpy scalar. numpy's times stay: some would become bare integers."""
    if isinstance(value, Enum):
        value = value.value
    value = unpack(value)
    if not isinstance(value, library("numpy", "generic")):
        return value
    times = (library("numpy", "datetime64"), library("numpy", "timedelta64"))
    item = value.item()
    return value if isinstance(value, times) and not isinstance(item, dt.date) else item


def unpack(value: Any) -> Any:
    """The value in a numpy array without dimensions; a masked array stays."""
    if getattr(value, "ndim", None) != 0 or not isinstance(value, library("numpy", "ndarray")):
        return value
    return value if isinstance(value, library("numpy.ma", "MaskedArray")) else value[()]


def _integer(value: Any, bounds: tuple[int, int], path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        mistype(path, value, "a whole number")
    if isinstance(value, float) and not value.is_integer():
        refuse(path, f"{value!r} is not a whole number")
    low, high = bounds
    if not low <= value <= high:
        refuse(path, f"{value!r} is not within {low} and {high}")
    return int(value)


def _float(value: Any, code: TypeCode, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        mistype(path, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value and not math.isnan(number):
        refuse(path, f"{value} is not a float: whole numbers are up to 2^53, and some beyond")
    return tensors.single(number, path) if code is TypeCode.FLOAT else number


def string(value: Any, path: str) -> str:
    """A text. Dates, times of day and UUIDs have a text form."""
    if isinstance(value, dt.date | dt.time) and not isinstance(value, dt.datetime):
        value = value.isoformat()
    elif isinstance(value, uuid.UUID):
        value = str(value)
    if not isinstance(value, str):
        mistype(path, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(path, "the text has a lone surrogate, which UTF-8 cannot carry")
    return str(value)


def mistype(path: str, value: Any, expected: str) -> NoReturn:
    """Raises TypeError for a value of a wrong type."""
    raise TypeError(f"{path}: {type_label(value)} is not {expected}")


def refuse(path: str, reason: str) -> NoReturn:
    """Raises ValueError for a value that a field cannot hold."""
    raise ValueError(f"{path}: {reason}")
