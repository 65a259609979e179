"""Records into messages of a model's own types.

Rule of this module: no value is changed on the way. What a message cannot say exactly is an error, not another value.
"""

import datetime
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NoReturn

import numpy as np
import pydantic_core
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import Array, Boxed, Message, OneOf, Plain, Shape, Slot, Timestamp, Value, Words
from mlflow_grpc.errors import UnwritableAnswer
from mlflow_grpc.payload import moments
from mlflow_grpc.payload.typed_reader import EXACT

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
        or type(value).__name__ in ("NaTType", "NAType")
        or (isinstance(value, np.datetime64) and bool(np.isnat(value)))
    )


def fill(message: Any, shape: Message, value: Any, path: str) -> None:
    """Writes a record into a message; what is None is left out."""
    if not isinstance(value, dict):
        unwritable(path or "it", f"a value of type {type(value).__name__}")
    rest = dict(value)
    for slot in shape.slots:
        each = rest.pop(slot.source.name or slot.name, None)
        if not is_nothing(each):
            put(message, slot, each, f"{path}.{slot.source.name or slot.name}".lstrip("."))
    if rest:
        unwritable(path or "it", "fields that the schema does not have")


def put(message: Any, slot: Slot, value: Any, where: str) -> None:
    """Writes a value into the field that a slot says."""
    if slot.form == "one":
        _put_one(message, slot.name, slot.shape, value, where)
    elif slot.form == "list":
        field = getattr(message, slot.name)
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list | tuple | set | frozenset):
            unwritable(where, f"a value of type {type(value).__name__}")
        extend(field, slot.shape, items, where)
    else:
        if not isinstance(value, dict):
            unwritable(where, f"a value of type {type(value).__name__}")
        field = getattr(message, slot.name)
        for key, each in _keyed(value, where):
            if isinstance(slot.shape, Plain | Words):
                field[key] = _scalar(each, slot.shape, f"{where}.{key}")
            else:
                _write(field[key], slot.shape, each, f"{where}.{key}")


def extend(field: Any, shape: Shape, values: Iterable[Any], where: str, *, filler: Any = None) -> None:
    """Writes values into a repeated field; `filler` stands there where a value is None, if there may be such."""
    if isinstance(shape, Plain | Words):
        field.extend(
            filler if filler is not None and is_nothing(each) else _scalar(each, shape, f"{where}[{place}]")
            for place, each in enumerate(values)
        )
        return
    for place, each in enumerate(values):
        made = field.add()
        if filler is None or not is_nothing(each):
            _write(made, shape, each, f"{where}[{place}]")


def _put_one(message: Any, name: str, shape: Shape, value: Any, where: str) -> None:
    if isinstance(shape, Plain | Words):
        setattr(message, name, _scalar(value, shape, where))
        return
    part = getattr(message, name)
    part.SetInParent()
    _write(part, shape, value, where)


def _write(message: Any, shape: Shape, value: Any, where: str) -> None:
    """Writes a value into a message that stands for it."""
    match shape:
        case Timestamp():
            _write_moment(message, value, where)
        case Value():
            _write_json(message, value, where)
        case Array():
            array = _array(value, where)
            message.shape.extend(array.shape)
            message.data.extend(_elements(array, shape, where))
        case OneOf():
            _write_alternative(message, shape, value, where)
        case Boxed():
            if value is not None:
                put(message, shape.content, value, where)
        case Message():
            fill(message, shape, value, where)
        case _:
            unwritable(where, f"a value of type {type(value).__name__}")


def _keyed(value: dict[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
    """The entries of a dictionary with their keys as JSON writes them."""
    seen = set()
    for key, each in value.items():
        text = json.dumps(key) if isinstance(key, bool | int | float) or key is None else key
        if not isinstance(text, str) or text in seen:
            unwritable(where, "a key that is no text, or is there twice as text")
        seen.add(text)
        yield text, each


def _array(value: Any, where: str) -> Any:
    """An array as it is; lists as an array of objects, which numpy would make one type of."""
    if isinstance(value, np.ma.MaskedArray):
        unwritable(where, "a mask")
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.array(value, dtype=object)
    except ValueError:
        unwritable(where, "rows of different shapes")
    if any(isinstance(each, list | tuple | np.ndarray) for each in array.ravel()):
        unwritable(where, "rows of different shapes")
    return array


def _elements(array: Any, shape: Array, where: str) -> list[Any]:
    if shape.element in (Proto.TYPE_STRING, Proto.TYPE_BYTES) or array.dtype.kind not in "biuf":
        return [_scalar(each, Plain(shape.element), where) for each in array.ravel().tolist()]
    if not _is_exact(array, np.dtype(shape.dtype)):
        unwritable(where, f"numbers that are not exact as {shape.dtype}")
    return list(array.astype(shape.dtype).ravel().tolist())


def _is_exact(array: Any, dtype: Any) -> bool:
    """Whether the numbers of an array are the same in another type; True and False are no numbers."""
    if array.dtype == dtype or not array.size:
        return True
    if "b" in (array.dtype.kind, dtype.kind):
        return False
    if array.dtype.kind in "iu" and dtype.kind == "f":
        most = 2 ** (np.finfo(dtype).nmant + 1)
        return bool(-most <= int(array.min()) and int(array.max()) <= most)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # As Python's integers: numpy would compare them as floats. The highest float below 2^64 is further off than 1.
        if not np.isfinite(array).all() or int(array.min()) < limits.min or int(array.max()) > limits.max:
            return False
    with np.errstate(all="ignore"):
        return bool(np.array_equal(array.astype(dtype), array, equal_nan=array.dtype.kind == "f"))


def _write_alternative(message: Any, shape: OneOf, value: Any, where: str) -> None:
    for name, alternative in shape.alternatives:
        if not _suits(value, alternative):
            continue
        _put_one(message, name, alternative, value, where)
        return
    unwritable(where, f"a value of type {type(value).__name__}, which is none of its types")


def _suits(value: Any, shape: Shape) -> bool:
    """Whether a value is of the type that a shape is for, before anything is converted."""
    match shape:
        case Plain(type=Proto.TYPE_BOOL):
            return isinstance(value, bool | np.bool_)
        case Plain(type=Proto.TYPE_DOUBLE | Proto.TYPE_FLOAT):
            return isinstance(value, float | np.floating)
        case Plain(type=Proto.TYPE_BYTES):
            return isinstance(value, bytes)
        case Plain(type=Proto.TYPE_STRING):
            return not isinstance(value, bool | int | float | dict | list | bytes | np.generic)
        case Plain():
            return isinstance(value, int | np.integer) and not isinstance(value, bool)
        case Words():
            return (value.value if isinstance(value, Enum) else value) in shape.values
        case Timestamp():
            return isinstance(value, datetime.datetime | np.datetime64)
        case Message():
            return isinstance(value, dict) and set(value) <= {slot.source.name for slot in shape.slots}
        case Boxed():
            return isinstance(value, dict if shape.content.form == "map" else list)
        case _:
            return True


def _scalar(value: Any, shape: Plain | Words, where: str) -> Any:
    """A value as protobuf takes it, if it is exactly that."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(shape, Words):
        if value not in shape.values:
            unwritable(where, "a word that is none of its values")
        return shape.numbers[shape.values.index(value)]
    exact = _exactly(value, shape.type)
    if exact is None:
        unwritable(where, f"a value of type {type(value).__name__}, or one that is not exact in its own type")
    return exact


def _exactly(value: Any, kind: int) -> Any:
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
        return float(value) if abs(value) <= EXACT else None
    if kind == Proto.TYPE_FLOAT and math.isfinite(value):
        with np.errstate(over="ignore"):
            return value if float(np.float32(value)) == value else None
    return value


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


def _write_moment(message: timestamp_pb2.Timestamp, value: Any, where: str) -> None:
    """Without a zone it is UTC."""
    try:
        message.seconds, message.nanos = moments.seconds_and_nanos(value)
    except (TypeError, ValueError) as error:
        unwritable(where, str(error))


def _write_json(message: struct_pb2.Value, value: Any, where: str, depth: int = 0) -> None:
    """Whatever JSON can say."""
    if depth > MOST_DEPTH:
        unwritable(where.partition("[")[0].partition(".")[0], f"lists and objects more than {MOST_DEPTH} deep")
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, dict):
        message.struct_value.SetInParent()
        for key, each in _keyed(value, where):
            _write_json(message.struct_value.fields[key], each, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        message.list_value.SetInParent()
        for place, each in enumerate(value):
            _write_json(message.list_value.values.add(), each, f"{where}[{place}]", depth + 1)
    elif is_nothing(value):
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = _scalar(value, Plain(Proto.TYPE_DOUBLE), where)
    else:
        message.string_value = _scalar(value, Plain(Proto.TYPE_STRING), where)
