"""Conversion of single values for protobuf: scalars, timestamps and JSON values.

Rule of this module: it changes no value. A value that protobuf cannot hold exactly is an error.
"""

import datetime
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NoReturn

import numpy as np
import pydantic_core
from _mlflow_grpc_protocol import timestamps
from _mlflow_grpc_protocol.json_values import (
    LIST_MESSAGES,
    MAX_EXACT_INTEGER,
    MAX_LISTS,
    MAX_MESSAGES,
    MAX_OBJECTS,
    OBJECT_MESSAGES,
)
from _mlflow_grpc_protocol.scalars import INTEGER_BOUNDS
from _mlflow_grpc_protocol.shapes import EnumShape, ScalarShape
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.errors import UnserializableOutput


@contextmanager
def as_unwritable() -> Iterator[None]:
    """Converts errors of protobuf and numpy to UnserializableOutput, because the model's output caused them."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise UnserializableOutput(
            "The model's output is not what its schema says, or cannot be written in its messages. The plain predict "
            "of service MLflow gives any output that the model returns."
        ) from error


def unwritable(where: str, problem: str) -> NoReturn:
    """Raises the error for output that has something, at a path, that its messages cannot hold."""
    raise UnserializableOutput(
        f"The model's output is not what its schema says: {where} has {problem}. The plain predict of service MLflow "
        "gives any output that the model returns."
    )


def is_nothing(value: Any) -> bool:
    """Returns True for None, and for the null values of pandas and numpy other than NaN."""
    return (
        value is None
        or value is np.ma.masked
        or type(value).__name__ in ("NaTType", "NAType")
        or (isinstance(value, np.datetime64) and bool(np.isnat(value)))
    )


def is_list(value: Any) -> bool:
    """Returns True for a list, a tuple or an array with at least one dimension."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def can_be_nothing(value_type: type) -> bool:
    """Returns True if `is_nothing` may be true for a value of the type.

    Checking the few types of a list is faster than checking all its values.
    """
    null_types = (type(None), type(np.ma.masked), np.datetime64)
    return value_type in null_types or value_type.__name__ in ("NaTType", "NAType")


def key_text(key: Any) -> str:
    """Returns a key as JSON writes it, such as null, true or 1.5; a key that JSON cannot write becomes `str(key)`."""
    return json.dumps(key) if isinstance(key, bool | int | float) or key is None else str(key)


def json_items(value: dict[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Yields the items of a dictionary with their keys as JSON writes them.

    Raises:
        UnserializableOutput: JSON cannot write a key, or writes two keys alike.

    """
    seen = set()
    for key, item in value.items():
        text = key_text(key) if isinstance(key, str | bool | int | float) or key is None else key
        if not isinstance(text, str) or text in seen:
            unwritable(where, "a key that is not text, or two keys that are equal as text")
        seen.add(text)
        yield text, item


def scalar(value: Any, shape: ScalarShape | EnumShape, where: str) -> Any:
    """Converts a value for a scalar or enum field.

    Raises:
        UnserializableOutput: The field cannot hold exactly this value.

    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic | np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(shape, EnumShape):
        if not isinstance(value, str) or value not in shape.numbers:
            unwritable(where, "a text that is not one of its values")
        return shape.numbers[value]
    exact = exact_value(value, shape.type)
    if exact is None:
        unwritable(where, f"a value of type {type(value).__name__}, or one that is not exact in its own type")
    return exact


def exact_value(value: Any, field_type: int) -> Any:
    """Converts a value to a protobuf type; None if the type cannot hold exactly this value."""
    if field_type == Proto.TYPE_BOOL:
        return value if isinstance(value, bool) else None
    if field_type == Proto.TYPE_STRING:
        return _text(value)
    if field_type == Proto.TYPE_BYTES:
        return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if field_type in INTEGER_BOUNDS:
        low, high = INTEGER_BOUNDS[field_type]
        integer = int(value) if isinstance(value, int) or (math.isfinite(value) and value.is_integer()) else None
        return integer if integer is not None and low <= integer <= high else None
    if isinstance(value, int):
        return _exact_float(value)
    if field_type == Proto.TYPE_FLOAT and math.isfinite(value):
        with np.errstate(over="ignore"):
            return value if float(np.float32(value)) == value else None
    return value


def _exact_float(value: int) -> float | None:
    """Converts an integer to a float; None if no float has exactly its value."""
    if abs(value) <= MAX_EXACT_INTEGER:
        return float(value)
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if int(number) == value else None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value if value.isascii() or _is_utf_8(value) else None
    if isinstance(value, bool | int | float | bytes | dict | list) or is_nothing(value):
        return None
    if hasattr(value, "nanosecond"):  # A pandas Timestamp has more digits than Python's datetime.
        return str(value.isoformat())
    try:
        json_value = pydantic_core.to_jsonable_python(value)  # Dates, UUIDs and decimals become text.
    except pydantic_core.PydanticSerializationError:
        return None
    return json_value if isinstance(json_value, str) else None


def _is_utf_8(text: str) -> bool:
    """Returns True if a text has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_timestamp(message: timestamp_pb2.Timestamp, value: Any, where: str) -> None:
    """Writes a timestamp. One without a zone is taken as UTC, and a date as its midnight.

    Raises:
        UnserializableOutput: The value is not a timestamp, or protobuf cannot hold it.

    """
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    try:
        message.seconds, message.nanos = timestamps.seconds_and_nanos(value)
    except (TypeError, ValueError) as error:
        unwritable(where, str(error))


def write_json(message: struct_pb2.Value, value: Any, where: str, depth: int = MAX_MESSAGES) -> None:
    """Writes a JSON value, with at most `depth` nested messages.

    Raises:
        UnserializableOutput: JSON has no such value, or it is nested too deeply.

    """
    if depth < 0:
        limits = f"more than {MAX_LISTS} lists or {MAX_OBJECTS} objects within each other"
        unwritable(where.partition("[")[0].partition(".")[0], limits)
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, dict):
        message.struct_value.SetInParent()
        for key, item in json_items(value, where):
            write_json(message.struct_value.fields[key], item, f"{where}.{key}", depth - OBJECT_MESSAGES)
    elif isinstance(value, list | tuple | set | frozenset):
        message.list_value.SetInParent()
        for index, item in enumerate(value):
            write_json(message.list_value.values.add(), item, f"{where}[{index}]", depth - LIST_MESSAGES)
    elif is_nothing(value):
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int) and _exact_float(value) is None:
        unwritable(
            where,
            "a whole number beyond 2^53 that no double is equal to, which is all that google.protobuf.Value has for "
            "numbers: declare a long in the model's output signature, or let the model answer it as text",
        )
    elif isinstance(value, int | float):
        message.number_value = scalar(value, ScalarShape(Proto.TYPE_DOUBLE), where)
    else:
        message.string_value = scalar(value, ScalarShape(Proto.TYPE_STRING), where)
