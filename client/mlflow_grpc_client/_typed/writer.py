"""Conversion of Python values into messages of a model's own types.

Rule of this module: no value changes, so the checks here are those that the server cannot make. A value that a field
cannot hold exactly is an error with the field's path; only a 32-bit float is rounded. numpy and pandas are not
imported.
"""

import datetime as dt
import math
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from _mlflow_grpc_protocol.scalars import FLOATS, INTEGER_BOUNDS, NATIVE_TYPES, item_filler, try_extend
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
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import json_writer, tensors, timestamps
from mlflow_grpc_client._typed.contract import is_nullable_json, type_name
from mlflow_grpc_client._typed.scalars import (
    builtin_value,
    check_key,
    instance,
    is_missing,
    missing_indexes,
    refuse,
    scalar,
    scalar_from_array,
    wrong_type,
)

_OWN_TYPES: dict[int, Any] = {
    **NATIVE_TYPES,
    FieldDescriptor.TYPE_FLOAT: float,
    FieldDescriptor.TYPE_BYTES: bytes | bytearray,
}
"""Python types of values that are not converted, by protobuf's types."""

MAX_LABELS = 20
"""Maximum number of field names in an error message."""


class UnknownField(TypeError):
    """The model has no field of this name."""


class MissingFields(ValueError):
    """Required lists or maps are missing. The server cannot detect that, because on the wire they are empty."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("; ".join(f"{name}: missing, and the model needs it" for name in names))
        self.names = names


def fill(message: Any, shape: MessageShape, values: Mapping[str, Any], path: str = "") -> None:
    """Writes a record into a message. None leaves a field out; in a field for any JSON value it is null.

    Raises TypeError for a value of a wrong type or without a field, ValueError for one that a field cannot hold exactly
    or that is None and would become a default, and MissingFields for a required list or map that is missing.
    """
    seen, written = set(), set()
    for name, value in values.items():
        field, field_path = find_field(shape, name, path), _join(path, name)
        if field.name in seen:
            raise given_twice(field_path)
        seen.add(field.name)
        is_null = is_missing(value) or (isinstance(value, float) and math.isnan(value) and nan_means_null(field))
        if not is_null or is_nullable_json(field):
            put(message, field, None if is_null else value, field_path)
            written.add(field.name)
        elif field.has_default:
            reject_null(field_path)
    if len(written) < len(shape.fields):
        absent = [field for field in shape.fields if field.needs_value and field.name not in written]
        if not all(field.is_singular for field in absent):
            raise MissingFields([_join(path, field.label) for field in absent])


def given_twice(path: str) -> TypeError:
    """The error for a field that is given by both of its names."""
    return TypeError(f"{path}: given twice, by its name in the model and by that in protobuf")


def reject_null(path: str) -> NoReturn:
    """Raises ValueError for a null that would become a default on the wire."""
    refuse(path, "None would become the field's default: leave the field out for that")


def find_field(shape: MessageShape, name: Any, path: str = "") -> FieldShape:
    """The field of a name; raises UnknownField. pandas' labels can be numbers, which are texts in messages."""
    field = shape.by_any_name.get(str(name))
    if field is None:
        labels = [field.label for field in shape.fields]
        more = f" and {len(labels) - MAX_LABELS} more" if len(labels) > MAX_LABELS else ""
        listed = ", ".join(labels[:MAX_LABELS]) + more
        raise UnknownField(f"{_join(path, str(name))}: there is no such field; there are: {listed or 'none'}")
    return field


def nan_means_null(field: FieldShape) -> bool:
    """Returns True if a field cannot hold NaN, so that NaN is pandas' mark for a missing value."""
    return not field.is_singular or lacks_nan(field.shape)


def lacks_nan(shape: Shape) -> bool:
    """Returns True if a shape cannot hold NaN."""
    if isinstance(shape, WrapperShape):
        return not shape.content.is_singular
    if isinstance(shape, ScalarShape):
        return shape.type not in FLOATS
    return not isinstance(shape, ValueShape | OneofShape)


def put(message: Any, field: FieldShape, value: Any, path: str) -> None:
    """Writes a value into a field. Raises what `fill` raises."""
    if field.is_singular:
        _put_singular(message, field.name, field.shape, value, path)
    elif field.is_repeated:
        items = _items(value, path)
        nulls = missing_indexes(items) if field.null_items else []
        if nulls:
            getattr(message, field.null_items).extend(nulls)
        extend(getattr(message, field.name), field.shape, items, path, nulls, item_filler(field.shape))
    else:
        _put_map(message, field, value, path)


def _put_singular(message: Any, name: str, shape: Shape, value: Any, path: str) -> None:
    if isinstance(shape, ScalarShape | EnumShape):
        setattr(message, name, scalar(value, shape, path))
    else:
        submessage = getattr(message, name)
        submessage.SetInParent()
        write(submessage, shape, value, path)


def _put_map(message: Any, field: FieldShape, value: Any, path: str) -> None:
    entries = getattr(message, field.name)
    for key, item in instance(value, Mapping, path, "a dict").items():
        check_key(key, path)
        if field.null_items and is_missing(item):
            getattr(message, field.null_items).append(key)
            continue
        _check_null(item, field.shape, f"{path}.{key}")
        if isinstance(field.shape, ScalarShape | EnumShape):
            entries[key] = scalar(item, field.shape, f"{path}.{key}")
        else:
            write(entries[key], field.shape, item, f"{path}.{key}")


def extend(repeated: Any, shape: Shape, items: Any, path: str, nulls: Collection[int] = (), filler: Any = None) -> None:
    """Writes values into a repeated field, and a filler in place of nulls; for messages an empty one."""
    null_indexes, is_scalar = frozenset(nulls), isinstance(shape, ScalarShape | EnumShape)
    if null_indexes and is_scalar:
        items = list(items)
        for index in null_indexes:
            items[index] = filler
    native = NATIVE_TYPES.get(shape.type) if isinstance(shape, ScalarShape) else None
    if native is not None and set(map(type, items)) == {native} and try_extend(repeated, items):
        return
    for index, item in enumerate(items):
        item_path = f"{path}[{index}]"
        is_null = index in null_indexes
        if not is_null:
            _check_null(item, shape, item_path)
        if isinstance(shape, ScalarShape | EnumShape):
            repeated.append(item if is_null else scalar(item, shape, item_path))
        elif is_null:
            repeated.add()
        else:
            write(repeated.add(), shape, item, item_path)


def _check_null(value: Any, shape: Shape, path: str) -> None:
    """Raises ValueError for None in a list or map whose items cannot be null."""
    if value is None and not items_may_be_null(shape):
        refuse(path, "None has no room in this list or map: the model takes no null there, so leave it out")


def write(message: Any, shape: Shape, value: Any, path: str) -> None:
    """Writes a value into the message of its shape. Raises what `fill` raises."""
    match shape:
        case TimestampShape():
            message.seconds, message.nanos = timestamps.seconds_and_nanos(scalar_from_array(value), path)
        case ValueShape():
            json_writer.write(message, value, path)
        case TensorShape():
            tensors.write(message, shape.element, value, path, scalar)
        case OneofShape():
            _write_alternative(message, shape, value, path)
        case WrapperShape():
            if not (is_missing(value) and shape.content.is_singular):
                put(message, shape.content, value, path)
        case MessageShape():
            fill(message, shape, instance(value, Mapping, path, "a dict"), path)


def _write_alternative(message: Any, union: OneofShape, value: Any, path: str) -> None:
    """Writes into the first alternative that can hold the value; alternatives of the value's own type come first."""
    own_type = [name for name, shape in union.alternatives.items() if _has_type(value, shape)]
    errors = []
    for name in dict.fromkeys([*own_type, *union.alternatives]):
        candidate = type(message)()
        try:
            _put_singular(candidate, name, union.alternatives[name], value, path)
        except (TypeError, ValueError) as error:
            errors.append(error)
            continue
        message.CopyFrom(candidate)
        return
    reasons = list(dict.fromkeys(map(str, errors[: len(own_type)])))
    if len(reasons) == 1:
        raise errors[0]
    names = ", ".join(map(type_name, union.alternatives.values()))
    refuse(path, ": ".join([f"{type_label(value)} is not one of {names}", *filter(None, ["; ".join(reasons)])]))


def _has_type(value: Any, shape: Shape) -> bool:
    """Returns True if a value has a type before any conversion."""
    if not isinstance(value, library("numpy", "datetime64")):
        value = builtin_value(value)
    match shape:
        case ScalarShape():
            if isinstance(value, int) and shape.type in INTEGER_BOUNDS:
                low, high = INTEGER_BOUNDS[shape.type]
                return not isinstance(value, bool) and low <= value <= high
            return isinstance(value, _OWN_TYPES[shape.type])
        case EnumShape():
            return isinstance(value, str) and value in shape.numbers
        case TimestampShape():
            return isinstance(value, (dt.datetime, library("numpy", "datetime64")))
        case MessageShape():
            return isinstance(value, Mapping) and value.keys() <= shape.by_any_name.keys()
        case WrapperShape():
            return isinstance(value, Mapping if shape.content.is_map else list | tuple)
        case _:
            return False


def _items(value: Any, path: str) -> Any:
    if isinstance(value, library("numpy", "ndarray")):
        tensors.check_unmasked(value, path)
        if not value.ndim:
            raise wrong_type(path, value, "a list")
        return list(value)
    if isinstance(value, library("pandas", "Series")):
        return value.tolist()
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    if is_text or isinstance(value, Mapping | AbstractSet) or not hasattr(value, "__iter__"):
        raise wrong_type(path, value, "a list")
    return list(value)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
