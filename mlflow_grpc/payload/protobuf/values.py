"""Single values as protobuf takes them: scalars, points in time, and whatever JSON can say.

Rule of this module: no value is changed on the way. What cannot be said exactly is an error, not another value.
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
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import EnumShape, ScalarShape
from mlflow_grpc.errors import UnwritableAnswer
from mlflow_grpc.payload import timestamps
from mlflow_grpc.payload.codec import EXACT

_INTEGERS: dict[int, tuple[int, int]] = {
    Proto.TYPE_INT32: (-(2**31), 2**31 - 1),
    Proto.TYPE_UINT32: (0, 2**32 - 1),
    Proto.TYPE_INT64: (-(2**63), 2**63 - 1),
    Proto.TYPE_UINT64: (0, 2**64 - 1),
}

MOST_DEPTH = 30
"""Of a google.protobuf.Value: each level takes up to three messages, and protobuf reads no more than a hundred."""


@contextmanager
def as_unwritable() -> Iterator[None]:
    """Whatever protobuf or numpy does not take is the model's fault too."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise UnwritableAnswer(
            "The model's output is not what its schema says, or cannot be written in its messages. The plain predict "
            "of service MLflow gives whatever the model returns."
        ) from error


def unwritable(where: str, what: str) -> NoReturn:
    """Says that the model's output has something, at a place, that its messages cannot hold."""
    raise UnwritableAnswer(
        f"The model's output is not what its schema says: {where} has {what}. The plain predict of service MLflow "
        "gives whatever the model returns."
    )


def is_nothing(value: Any) -> bool:
    """Whether a value stands for none: None, and what pandas and numpy have for that where NaN is not to be had."""
    return (
        value is None
        or value is np.ma.masked
        or type(value).__name__ in ("NaTType", "NAType")
        or (isinstance(value, np.datetime64) and bool(np.isnat(value)))
    )


def is_list(value: Any) -> bool:
    """Whether a value has items; an array without a dimension has none."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def can_be_nothing(kind: type) -> bool:
    """Whether `is_nothing` may be true of a value of a type: to look at each value takes longer than at their types."""
    return kind in (type(None), type(np.ma.masked), np.datetime64) or kind.__name__ in ("NaTType", "NAType")


def key_text(key: Any) -> str:
    """A key as JSON writes it: null, true, 1.5; any other one as Python's text of it."""
    return json.dumps(key) if isinstance(key, bool | int | float) or key is None else str(key)


def keyed(value: dict[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
    """The entries of a dictionary with their keys as JSON writes them.

    Raises:
        UnwritableAnswer: A key has no form in JSON, or that of another one.

    """
    seen = set()
    for key, each in value.items():
        text = key_text(key) if isinstance(key, str | bool | int | float) or key is None else key
        if not isinstance(text, str) or text in seen:
            unwritable(where, "a key that is no text, or is there twice as text")
        seen.add(text)
        yield text, each


def scalar(value: Any, shape: ScalarShape | EnumShape, where: str) -> Any:
    """A value as protobuf takes it.

    Raises:
        UnwritableAnswer: It would not be exactly that value any more.

    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic | np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(shape, EnumShape):
        if value not in shape.values:
            unwritable(where, "a word that is none of its values")
        return shape.numbers[shape.values.index(value)]
    exact = exactly(value, shape.type)
    if exact is None:
        unwritable(where, f"a value of type {type(value).__name__}, or one that is not exact in its own type")
    return exact


def exactly(value: Any, kind: int) -> Any:
    """The value in a protobuf type; None if it is not that value any more."""
    if kind == Proto.TYPE_BOOL:
        return value if isinstance(value, bool) else None
    if kind == Proto.TYPE_STRING:
        return _text(value)
    if kind == Proto.TYPE_BYTES:
        return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        whole = int(value) if isinstance(value, int) or (math.isfinite(value) and value.is_integer()) else None
        return whole if whole is not None and low <= whole <= high else None
    if isinstance(value, int):
        return _exact_float(value)
    if kind == Proto.TYPE_FLOAT and math.isfinite(value):
        with np.errstate(over="ignore"):
            return value if float(np.float32(value)) == value else None
    return value


def _exact_float(value: int) -> float | None:
    """An integer as a float; None if there is none of exactly its value."""
    if abs(value) <= EXACT:
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
    if hasattr(value, "nanosecond"):  # pandas' points in time have more digits than Python's.
        return str(value.isoformat())
    try:
        plain = pydantic_core.to_jsonable_python(value)  # Dates, UUIDs, decimals: what JSON has text for.
    except pydantic_core.PydanticSerializationError:
        return None
    return plain if isinstance(plain, str) else None


def _is_utf_8(text: str) -> bool:
    """Whether there are no lone surrogates in a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_moment(message: timestamp_pb2.Timestamp, value: Any, where: str) -> None:
    """Writes a point in time; without a zone it is UTC, and a date is its midnight.

    Raises:
        UnwritableAnswer: It is none, or none that protobuf has.

    """
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    try:
        message.seconds, message.nanos = timestamps.seconds_and_nanos(value)
    except (TypeError, ValueError) as error:
        unwritable(where, str(error))


def write_json(message: struct_pb2.Value, value: Any, where: str, depth: int = 0) -> None:
    """Writes whatever JSON can say.

    Raises:
        UnwritableAnswer: It is something else, or too deep.

    """
    if depth > MOST_DEPTH:
        unwritable(where.partition("[")[0].partition(".")[0], f"lists and objects more than {MOST_DEPTH} deep")
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, dict):
        message.struct_value.SetInParent()
        for key, each in keyed(value, where):
            write_json(message.struct_value.fields[key], each, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        message.list_value.SetInParent()
        for place, each in enumerate(value):
            write_json(message.list_value.values.add(), each, f"{where}[{place}]", depth + 1)
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
