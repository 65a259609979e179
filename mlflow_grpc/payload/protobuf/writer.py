"""Records into messages of a model's own types.

Rule of this module: no value is changed on the way. What a message cannot say exactly is an error, not another value.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import Array, Boxed, Message, OneOf, Plain, Shape, Slot, Timestamp, Value, Words
from mlflow_grpc.errors import UnwritableAnswer
from mlflow_grpc.payload.protobuf.unions import chosen
from mlflow_grpc.payload.protobuf.values import (
    can_be_nothing,
    is_nothing,
    keyed,
    scalar,
    unwritable,
    write_json,
    write_moment,
)

AS_THEY_ARE: dict[int, type] = {
    Proto.TYPE_BOOL: bool,
    Proto.TYPE_INT32: int,
    Proto.TYPE_INT64: int,
    Proto.TYPE_DOUBLE: float,
    Proto.TYPE_STRING: str,
}
"""The Python type all of whose values a field takes as they are, or refuses."""


def fill(message: Any, shape: Message, value: Any, path: str) -> None:
    """Writes a record into a message; what is None is left out.

    What no field can hold is an error, unless the record is one that may have fields of its own.
    """
    if not isinstance(value, dict):
        unwritable(path or "it", f"a value of type {type(value).__name__}")
    rest = dict(value)
    for slot in shape.slots:
        each = rest.pop(slot.source.name or slot.name, None)
        if is_nothing(each):
            if slot.null:
                setattr(message, slot.null, True)
            elif shape.extra and slot.form != "one" and slot.source.name in value:
                rest[slot.source.name] = None  # Beside the field, which would be an empty one.
            continue
        try:
            put(message, slot, each, f"{path}.{slot.source.name or slot.name}".lstrip("."))
        except (UnwritableAnswer, TypeError, ValueError):
            if not shape.extra:
                raise
            message.ClearField(slot.name)
            rest[slot.source.name] = each
    if rest and not shape.extra:
        unwritable(path or "it", "fields that the schema does not have")
    for key, each in keyed(rest, path or "it"):
        write_json(getattr(message, shape.extra)[key], each, f"{path}.{key}".lstrip("."))


def put(message: Any, slot: Slot, value: Any, where: str) -> None:
    """Writes a value into the field that a slot says."""
    if slot.form == "one":
        _put_one(message, slot.name, slot.shape, value, where)
    elif slot.form == "list":
        _put_list(message, slot, value, where)
    else:
        _put_map(message, slot, value, where)


def _put_list(message: Any, slot: Slot, value: Any, where: str) -> None:
    field = getattr(message, slot.name)
    # numpy's own list has numbers in place of points in time.
    is_array = isinstance(value, np.ndarray) and value.dtype.kind != "M"
    items = value.tolist() if is_array else value
    if not isinstance(items, list | tuple | set | frozenset | np.ndarray):
        unwritable(where, f"a value of type {type(value).__name__}")
    types = set(map(type, items))
    if isinstance(slot.shape, Plain) and types == {AS_THEY_ARE.get(slot.shape.type)} and _extends(field, items):
        return
    if slot.null_items and any(map(can_be_nothing, types)):
        getattr(message, slot.null_items).extend(place for place, each in enumerate(items) if is_nothing(each))
        extend(field, slot.shape, items, where, filler=_item_filler(slot.shape))
    else:
        extend(field, slot.shape, items, where)


def _put_map(message: Any, slot: Slot, value: Any, where: str) -> None:
    if not isinstance(value, dict):
        unwritable(where, f"a value of type {type(value).__name__}")
    field = getattr(message, slot.name)
    for key, each in keyed(value, where):
        if is_nothing(each):
            if slot.null_items:
                getattr(message, slot.null_items).append(key)
                continue
            _check_null(slot.shape, f"{where}.{key}")
        if isinstance(slot.shape, Plain | Words):
            field[key] = scalar(each, slot.shape, f"{where}.{key}")
        else:
            _write(field[key], slot.shape, each, f"{where}.{key}")


def _extends(field: Any, items: Any) -> bool:
    """Writes values as they are; False, and nothing is written, if the field refuses one: the words come later."""
    try:
        field.extend(items)
    except (ValueError, OverflowError):  # Past the bits that it has, or a lone surrogate.
        del field[:]
        return False
    return True


def extend(field: Any, shape: Shape, values: Iterable[Any], where: str, *, filler: Any = None) -> None:
    """Writes values into a repeated field; `filler` stands there where a value is None, if there may be such."""
    if isinstance(shape, Plain | Words):
        field.extend(
            filler if filler is not None and is_nothing(each) else _item(each, shape, f"{where}[{place}]")
            for place, each in enumerate(values)
        )
        return
    for place, each in enumerate(values):
        made = field.add()
        if filler is None and is_nothing(each):
            _check_null(shape, f"{where}[{place}]")
        if filler is None or not is_nothing(each):
            _write(made, shape, each, f"{where}[{place}]")


def filler(shape: Shape) -> Any:
    """What stands in a repeated field where there is no value; anything but None for what is a message."""
    if isinstance(shape, Plain) and shape.type in (Proto.TYPE_STRING, Proto.TYPE_BYTES):
        return "" if shape.type == Proto.TYPE_STRING else b""
    return 0


def _item_filler(shape: Shape) -> Any:
    """The same within a list, for those too who read nothing but the list: NaN says best that there is no number."""
    is_float = isinstance(shape, Plain) and shape.type in (Proto.TYPE_DOUBLE, Proto.TYPE_FLOAT)
    return math.nan if is_float else filler(shape)


def _item(value: Any, shape: Plain | Words, where: str) -> Any:
    if value is None:
        _check_null(shape, where)
    return scalar(value, shape, where)


def _check_null(shape: Shape, where: str) -> None:
    """Refuses a null in a list or map whose values have no room for it."""
    if not isinstance(shape, Value) and not (isinstance(shape, Boxed) and shape.content.form == "one"):
        unwritable(where, "a null, for which there is no room in the lists and maps of its messages")


def _put_one(message: Any, name: str, shape: Shape, value: Any, where: str) -> None:
    if isinstance(shape, Plain | Words):
        setattr(message, name, scalar(value, shape, where))
        return
    part = getattr(message, name)
    part.SetInParent()
    _write(part, shape, value, where)


def _write(message: Any, shape: Shape, value: Any, where: str) -> None:
    """Writes a value into a message that stands for it."""
    match shape:
        case Timestamp():
            write_moment(message, value, where)
        case Value():
            write_json(message, value, where)
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
        return [scalar(each, Plain(shape.element), where) for each in array.ravel().tolist()]
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
    alternative = chosen(value, shape)
    if alternative is None:
        unwritable(where, f"a value of type {type(value).__name__}, which is none of its types")
    _put_one(message, *alternative, value, where)
