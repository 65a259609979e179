"""Records into messages of a model's own types.

Rule of this module: no value is changed on the way. What a message cannot say exactly is an error, not another value.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
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


def fill(message: Any, shape: MessageShape, value: Any, path: str) -> None:
    """Writes a record into a message; what is None is left out.

    What no field can hold is an error, unless the record is one that may have fields of its own.
    """
    if not isinstance(value, dict):
        unwritable(path or "it", f"a value of type {type(value).__name__}")
    rest = dict(value)
    for field in shape.fields:
        each = rest.pop(field.source.name or field.name, None)
        if is_nothing(each):
            if field.null:
                setattr(message, field.null, True)
            elif shape.extra and not field.is_singular and field.source.name in value:
                rest[field.source.name] = None  # Beside the field, which would be an empty one.
            continue
        try:
            put(message, field, each, f"{path}.{field.source.name or field.name}".lstrip("."))
        except (UnwritableAnswer, TypeError, ValueError):
            if not shape.extra:
                raise
            message.ClearField(field.name)
            rest[field.source.name] = each
    if rest and not shape.extra:
        unwritable(path or "it", "fields that the schema does not have")
    for key, each in keyed(rest, path or "it"):
        write_json(getattr(message, shape.extra)[key], each, f"{path}.{key}".lstrip("."))


def put(message: Any, field: FieldShape, value: Any, where: str) -> None:
    """Writes a value into the field that a field says."""
    if field.is_singular:
        _put_one(message, field.name, field.shape, value, where)
    elif field.is_repeated:
        _put_list(message, field, value, where)
    else:
        _put_map(message, field, value, where)


def _put_list(message: Any, field: FieldShape, value: Any, where: str) -> None:
    container = getattr(message, field.name)
    # numpy's own list has numbers in place of points in time.
    is_array = isinstance(value, np.ndarray) and value.dtype.kind != "M"
    items = value.tolist() if is_array else value
    if not isinstance(items, list | tuple | set | frozenset | np.ndarray):
        unwritable(where, f"a value of type {type(value).__name__}")
    types = set(map(type, items))
    if (
        isinstance(field.shape, ScalarShape)
        and types == {AS_THEY_ARE.get(field.shape.type)}
        and _extends(container, items)
    ):
        return
    if field.null_items and any(map(can_be_nothing, types)):
        getattr(message, field.null_items).extend(place for place, each in enumerate(items) if is_nothing(each))
        extend(container, field.shape, items, where, filler=_item_filler(field.shape))
    else:
        extend(container, field.shape, items, where)


def _put_map(message: Any, field: FieldShape, value: Any, where: str) -> None:
    if not isinstance(value, dict):
        unwritable(where, f"a value of type {type(value).__name__}")
    container = getattr(message, field.name)
    for key, each in keyed(value, where):
        if is_nothing(each):
            if field.null_items:
                getattr(message, field.null_items).append(key)
                continue
            _check_null(field.shape, f"{where}.{key}")
        if isinstance(field.shape, ScalarShape | EnumShape):
            container[key] = scalar(each, field.shape, f"{where}.{key}")
        else:
            _write(container[key], field.shape, each, f"{where}.{key}")


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
    if isinstance(shape, ScalarShape | EnumShape):
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
    if isinstance(shape, ScalarShape) and shape.type in (Proto.TYPE_STRING, Proto.TYPE_BYTES):
        return "" if shape.type == Proto.TYPE_STRING else b""
    return 0


def _item_filler(shape: Shape) -> Any:
    """The same within a list, for those too who read nothing but the list: NaN says best that there is no number."""
    is_float = isinstance(shape, ScalarShape) and shape.type in (Proto.TYPE_DOUBLE, Proto.TYPE_FLOAT)
    return math.nan if is_float else filler(shape)


def _item(value: Any, shape: ScalarShape | EnumShape, where: str) -> Any:
    if value is None:
        _check_null(shape, where)
    return scalar(value, shape, where)


def _check_null(shape: Shape, where: str) -> None:
    """Refuses a null in a list or map whose values have no room for it."""
    if not isinstance(shape, ValueShape) and not (isinstance(shape, WrapperShape) and shape.content.is_singular):
        unwritable(where, "a null, for which there is no room in the lists and maps of its messages")


def _put_one(message: Any, name: str, shape: Shape, value: Any, where: str) -> None:
    if isinstance(shape, ScalarShape | EnumShape):
        setattr(message, name, scalar(value, shape, where))
        return
    part = getattr(message, name)
    part.SetInParent()
    _write(part, shape, value, where)


def _write(message: Any, shape: Shape, value: Any, where: str) -> None:
    """Writes a value into a message that stands for it."""
    match shape:
        case TimestampShape():
            write_moment(message, value, where)
        case ValueShape():
            write_json(message, value, where)
        case TensorShape():
            array = _array(value, where)
            message.shape.extend(array.shape)
            message.data.extend(_elements(array, shape, where))
        case OneofShape():
            _write_alternative(message, shape, value, where)
        case WrapperShape():
            if value is not None:
                put(message, shape.content, value, where)
        case MessageShape():
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


def _elements(array: Any, shape: TensorShape, where: str) -> list[Any]:
    if shape.element in (Proto.TYPE_STRING, Proto.TYPE_BYTES) or array.dtype.kind not in "biuf":
        return [scalar(each, ScalarShape(shape.element), where) for each in array.ravel().tolist()]
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


def _write_alternative(message: Any, shape: OneofShape, value: Any, where: str) -> None:
    alternative = chosen(value, shape)
    if alternative is None:
        unwritable(where, f"a value of type {type(value).__name__}, which is none of its types")
    _put_one(message, *alternative, value, where)
