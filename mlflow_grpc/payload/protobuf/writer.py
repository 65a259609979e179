"""Conversion of records into messages of a model's own types.

Rule of this module: it changes no value. A value that a message cannot hold exactly is an error.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from _mlflow_grpc_protocol.scalars import NATIVE_TYPES, item_filler, try_extend
from _mlflow_grpc_protocol.shapes import (
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
    items_may_be_null,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.protobuf.unions import choose_alternative
from mlflow_grpc.payload.protobuf.values import (
    can_be_nothing,
    is_nothing,
    json_items,
    scalar,
    unwritable,
    write_json,
    write_timestamp,
)


def fill(message: Any, shape: MessageShape, value: Any, path: str) -> None:
    """Writes a record into a message; None leaves a field unset.

    A record that may have further fields keeps a value that fits no field among these. For other records such a value
    is an error.
    """
    if not isinstance(value, dict):
        unwritable(path or "it", f"a value of type {type(value).__name__}")
    extra_fields = dict(value)
    for field in shape.fields:
        field_value = extra_fields.pop(field.label, None)
        if is_nothing(field_value):
            if field.null_flag:
                setattr(message, field.null_flag, True)
            elif shape.extra and not field.is_singular and field.model_name in value:
                # The null goes to the further fields, because an unset list or map would be read as an empty one.
                extra_fields[field.model_name] = None
            continue
        try:
            write_field(message, field, field_value, f"{path}.{field.label}".lstrip("."))
        except (UnserializableOutput, TypeError, ValueError):
            if not shape.extra:
                raise
            message.ClearField(field.name)
            extra_fields[field.model_name] = field_value
    if extra_fields and not shape.extra:
        unwritable(path or "it", "fields that the schema does not have")
    for key, item in json_items(extra_fields, path or "it"):
        write_json(getattr(message, shape.extra)[key], item, f"{path}.{key}".lstrip("."))


def write_field(message: Any, field: FieldShape, value: Any, where: str) -> None:
    """Writes a value into a field of a message."""
    if field.is_singular:
        _write_singular(message, field.name, field.shape, value, where)
    elif field.is_repeated:
        _write_list(message, field, value, where)
    else:
        _write_map(message, field, value, where)


def _write_list(message: Any, field: FieldShape, value: Any, where: str) -> None:
    container = getattr(message, field.name)
    # The tolist() of a datetime64 array returns numbers, so such an array is iterated instead.
    is_array = isinstance(value, np.ndarray) and value.dtype.kind != "M"
    items = value.tolist() if is_array else value
    if not isinstance(items, list | tuple | set | frozenset | np.ndarray):
        unwritable(where, f"a value of type {type(value).__name__}")
    types = set(map(type, items))
    if (
        isinstance(field.shape, ScalarShape)
        and types == {NATIVE_TYPES.get(field.shape.type)}
        and try_extend(container, items)
    ):
        return
    if field.null_items and any(map(can_be_nothing, types)):
        getattr(message, field.null_items).extend(index for index, item in enumerate(items) if is_nothing(item))
        extend(container, field.shape, items, where, filler=item_filler(field.shape))
    else:
        extend(container, field.shape, items, where)


def _write_map(message: Any, field: FieldShape, value: Any, where: str) -> None:
    if not isinstance(value, dict):
        unwritable(where, f"a value of type {type(value).__name__}")
    container = getattr(message, field.name)
    for key, item in json_items(value, where):
        if is_nothing(item):
            if field.null_items:
                getattr(message, field.null_items).append(key)
                continue
            _check_null(field.shape, f"{where}.{key}")
        if isinstance(field.shape, ScalarShape | EnumShape):
            container[key] = scalar(item, field.shape, f"{where}.{key}")
        else:
            _write(container[key], field.shape, item, f"{where}.{key}")


def extend(container: Any, shape: Shape, values: Iterable[Any], where: str, *, filler: Any = None) -> None:
    """Writes values into a repeated field.

    Args:
        container: The repeated field.
        shape: Shape of its items.
        values: The values.
        where: Path of the field in errors.
        filler: Item written for a null; None if nulls are not allowed.

    """
    if isinstance(shape, ScalarShape | EnumShape):
        container.extend(
            filler if filler is not None and is_nothing(value) else _item(value, shape, f"{where}[{index}]")
            for index, value in enumerate(values)
        )
        return
    for index, value in enumerate(values):
        item = container.add()
        if filler is None and is_nothing(value):
            _check_null(shape, f"{where}[{index}]")
        if filler is None or not is_nothing(value):
            _write(item, shape, value, f"{where}[{index}]")


def _item(value: Any, shape: ScalarShape | EnumShape, where: str) -> Any:
    if value is None:
        _check_null(shape, where)
    return scalar(value, shape, where)


def _check_null(shape: Shape, where: str) -> None:
    """Refuses a null in a list or map whose items cannot be null."""
    if not items_may_be_null(shape):
        unwritable(where, "a null, which the lists and maps of its messages cannot hold")


def _write_singular(message: Any, name: str, shape: Shape, value: Any, where: str) -> None:
    if isinstance(shape, ScalarShape | EnumShape):
        setattr(message, name, scalar(value, shape, where))
        return
    submessage = getattr(message, name)
    submessage.SetInParent()
    _write(submessage, shape, value, where)


def _write(message: Any, shape: Shape, value: Any, where: str) -> None:
    """Writes a value into the message that represents it."""
    match shape:
        case TimestampShape():
            write_timestamp(message, value, where)
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
                write_field(message, shape.content, value, where)
        case MessageShape():
            fill(message, shape, value, where)
        case _:
            unwritable(where, f"a value of type {type(value).__name__}")


def _array(value: Any, where: str) -> Any:
    """Returns an array unchanged, and lists as an array of objects, because numpy would convert them to one type."""
    if isinstance(value, np.ma.MaskedArray):
        unwritable(where, "a mask")
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.array(value, dtype=object)
    except ValueError:
        unwritable(where, "rows of different shapes")
    if any(isinstance(element, list | tuple | np.ndarray) for element in array.ravel()):
        unwritable(where, "rows of different shapes")
    return array


def _elements(array: Any, shape: TensorShape, where: str) -> list[Any]:
    if shape.element.type in (Proto.TYPE_STRING, Proto.TYPE_BYTES) or array.dtype.kind not in "biuf":
        return [scalar(element, shape.element, where) for element in array.ravel().tolist()]
    if not _is_exact(array, np.dtype(shape.dtype)):
        unwritable(where, f"numbers that are not exact as {shape.dtype}")
    return list(array.astype(shape.dtype).ravel().tolist())


def _is_exact(array: Any, dtype: Any) -> bool:
    """Returns True if the numbers of an array are the same in another type; booleans are not numbers."""
    if array.dtype == dtype or not array.size:
        return True
    if "b" in (array.dtype.kind, dtype.kind):
        return False
    if array.dtype.kind in "iu" and dtype.kind == "f":
        max_exact = 2 ** (np.finfo(dtype).nmant + 1)
        return bool(-max_exact <= int(array.min()) and int(array.max()) <= max_exact)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # Compared as Python integers, because numpy would round the limits to floats: 2^64-1 would become 2^64.
        if not np.isfinite(array).all() or int(array.min()) < limits.min or int(array.max()) > limits.max:
            return False
    with np.errstate(all="ignore"):
        return bool(np.array_equal(array.astype(dtype), array, equal_nan=array.dtype.kind == "f"))


def _write_alternative(message: Any, shape: OneofShape, value: Any, where: str) -> None:
    alternative = choose_alternative(value, shape)
    if alternative is None:
        unwritable(where, f"a value of type {type(value).__name__}, which fits no type of its union")
    _write_singular(message, *alternative, value, where)
