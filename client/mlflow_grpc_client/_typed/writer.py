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

from _mlflow_grpc_protocol.typed_terms import Cardinality

from mlflow_grpc_client._payloads import library, type_label
from mlflow_grpc_client._typed import json_writer, tensors, timestamps
from mlflow_grpc_client._typed.contract import Field, Record, TypeCode, ValueType
from mlflow_grpc_client._typed.scalars import (
    builtin_value,
    check_key,
    is_missing,
    missing_indexes,
    refuse,
    scalar,
    scalar_from_array,
    wrong_type,
)

_NATIVE = {TypeCode.DOUBLE: float, TypeCode.BOOLEAN: bool, TypeCode.INTEGER: int, TypeCode.STRING: str}
"""Python types whose lists protobuf can take as they are."""
_SCALARS = frozenset({*_NATIVE, TypeCode.FLOAT, TypeCode.BYTES, TypeCode.ENUM})
NULL_ROWS = {
    TypeCode.BOOLEAN: False, TypeCode.INTEGER: 0, TypeCode.FLOAT: 0.0, TypeCode.DOUBLE: 0.0, TypeCode.STRING: "",
    TypeCode.BYTES: b"", TypeCode.ENUM: 0,
}  # fmt: skip
"""The values sent for null rows of a column, which are marked in another field."""
_NULL_ITEMS = {**NULL_ROWS, TypeCode.FLOAT: math.nan, TypeCode.DOUBLE: math.nan}
"""The values sent for null items of a list. NaN serves readers that look at the list only."""


MAX_LABELS = 20
"""Maximum number of field names in an error message."""


class UnknownField(TypeError):
    """The model has no field of this name."""


class MissingFields(ValueError):
    """Required lists or maps are missing. The server cannot detect that, because on the wire they are empty."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("; ".join(f"{name}: missing, and the model needs it" for name in names))
        self.names = names


def fill(message: Any, record: Record, values: Mapping[str, Any], path: str = "") -> None:
    """Writes a record into a message. None leaves a field out; in a field for any JSON value it is null.

    Raises:
        TypeError: There is no such field, or a value has a wrong type.
        ValueError: A field cannot hold its value, or the value is None and would become the field's default.
        MissingFields: A required list or map is missing.

    """
    seen, written = set(), set()
    for name, value in values.items():
        field, field_path = find_field(record, name, path), _join(path, name)
        if field.name in seen:
            raise given_twice(field_path)
        seen.add(field.name)
        is_null = is_missing(value) or (isinstance(value, float) and math.isnan(value) and nan_means_null(field))
        if not is_null or field.is_nullable_json:
            put(message, field, None if is_null else value, field_path)
            written.add(field.name)
        elif field.name in record.defaulted:
            reject_null(field_path)
    absent = record.required - written
    if any(not record.fields[name].has_presence for name in absent):
        raise MissingFields([_join(path, field.label) for field in record.fields.values() if field.name in absent])


def given_twice(path: str) -> TypeError:
    """The error for a field that is given by both of its names."""
    return TypeError(f"{path}: given twice, by its name in the model and by that in protobuf")


def reject_null(path: str) -> NoReturn:
    """Raises ValueError for a null that would become a default on the wire."""
    refuse(path, "None would become the field's default: leave the field out for that")


def find_field(record: Record, name: Any, path: str = "") -> Field:
    """The field of a name. pandas' labels can be numbers, which are texts in messages.

    Raises:
        UnknownField: There is no such field.

    """
    field = record.by_any_name.get(str(name))
    if field is None:
        labels = [field.label for field in record.fields.values()]
        more = f" and {len(labels) - MAX_LABELS} more" if len(labels) > MAX_LABELS else ""
        listed = ", ".join(labels[:MAX_LABELS]) + more
        raise UnknownField(f"{_join(path, str(name))}: there is no such field; there are: {listed or 'none'}")
    return field


def nan_means_null(field: Field) -> bool:
    """Returns True if a field cannot hold NaN, so that NaN is pandas' mark for a missing value."""
    return field.cardinality is not Cardinality.SINGULAR or type_lacks_nan(field.type)


def type_lacks_nan(value_type: ValueType) -> bool:
    """Returns True if a type cannot hold NaN."""
    if value_type.code is TypeCode.WRAPPER:
        return value_type.content.cardinality is not Cardinality.SINGULAR
    return value_type.code not in (TypeCode.FLOAT, TypeCode.DOUBLE, TypeCode.JSON, TypeCode.UNION)


def put(message: Any, field: Field, value: Any, path: str) -> None:
    """Writes a value into a field. Raises what `fill` raises."""
    if field.cardinality is Cardinality.SINGULAR:
        if field.type.code in _SCALARS:
            setattr(message, field.name, scalar(value, field.type, path))
        else:
            submessage = getattr(message, field.name)
            submessage.SetInParent()
            write(submessage, field.type, value, path)
    elif field.cardinality is Cardinality.REPEATED:
        items = _items(value, path)
        nulls = missing_indexes(items) if field.null_items else []
        if nulls:
            getattr(message, field.null_items).extend(nulls)
        extend(getattr(message, field.name), field.type, items, path, nulls)
    else:
        _put_map(message, field, value, path)


def _put_map(message: Any, field: Field, value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise wrong_type(path, value, "a dict")
    entries = getattr(message, field.name)
    for key, item in value.items():
        check_key(key, path)
        if field.null_items and is_missing(item):
            getattr(message, field.null_items).append(key)
            continue
        _check_null(item, field.type, f"{path}.{key}")
        if field.type.code in _SCALARS:
            entries[key] = scalar(item, field.type, f"{path}.{key}")
        else:
            write(entries[key], field.type, item, f"{path}.{key}")


def extend(
    repeated: Any,
    value_type: ValueType,
    items: Any,
    path: str,
    nulls: Collection[int] = (),
    fillers: Mapping[TypeCode, Any] = _NULL_ITEMS,
) -> None:
    """Writes values into a repeated field."""
    code, null_indexes = value_type.code, frozenset(nulls)
    if null_indexes and code in fillers:
        items = list(items)
        for index in null_indexes:
            items[index] = fillers[code]
    if code in _NATIVE and set(map(type, items)) == {_NATIVE[code]} and _extend_natively(repeated, items):
        return
    for index, item in enumerate(items):
        item_path = f"{path}[{index}]"
        is_null = index in null_indexes
        if not is_null:
            _check_null(item, value_type, item_path)
        if code in _SCALARS:
            repeated.append(item if is_null else scalar(item, value_type, item_path))
        elif is_null:
            repeated.add()
        else:
            write(repeated.add(), value_type, item, item_path)


def _extend_natively(repeated: Any, items: Any) -> bool:
    """Writes values without checking each one; returns False, with nothing written, if protobuf refuses a value."""
    size = len(repeated)
    try:
        repeated.extend(items)
    except ValueError:  # Out of bounds, or a lone surrogate.
        del repeated[size:]
        return False
    return True


def _check_null(value: Any, value_type: ValueType, path: str) -> None:
    """Raises ValueError for None in a list or map whose items cannot be null."""
    if value is not None or value_type.code is TypeCode.JSON:
        return
    if value_type.code is not TypeCode.WRAPPER or value_type.content.cardinality is not Cardinality.SINGULAR:
        refuse(path, "None has no room in this list or map: the model takes no null there, so leave it out")


def write(message: Any, value_type: ValueType, value: Any, path: str) -> None:
    """Writes a value into the message of its type. Raises what `fill` raises."""
    match value_type.code:
        case TypeCode.TIMESTAMP:
            message.seconds, message.nanos = timestamps.seconds_and_nanos(scalar_from_array(value), path)
        case TypeCode.JSON:
            json_writer.write(message, value, path)
        case TypeCode.TENSOR:
            tensors.write(message, value_type.message.fields["data"].type, value, path, scalar)
        case TypeCode.UNION:
            _write_alternative(message, value_type.message, value, path)
        case TypeCode.WRAPPER:
            if not (is_missing(value) and value_type.content.cardinality is Cardinality.SINGULAR):
                put(message, value_type.content, value, path)
        case _:
            if not isinstance(value, Mapping):
                raise wrong_type(path, value, "a dict")
            fill(message, value_type.message, value, path)


def _write_alternative(message: Any, union: Record, value: Any, path: str) -> None:
    """Writes into the first alternative that can hold the value; alternatives of the value's own type come first."""
    own_type = [field for field in union.fields.values() if _is_instance(value, field.type)]
    alternatives = [*own_type, *(field for field in union.fields.values() if field not in own_type)]
    errors = []
    for field in alternatives:
        candidate = type(message)()
        try:
            put(candidate, field, value, path)
        except (TypeError, ValueError) as error:
            errors.append(error)
            continue
        message.CopyFrom(candidate)
        return
    reasons = list(dict.fromkeys(map(str, errors[: len(own_type)])))
    if len(reasons) == 1:
        raise errors[0]
    names = ", ".join(_type_name(field.type) for field in union.fields.values())
    refuse(path, ": ".join([f"{type_label(value)} is not one of {names}", *filter(None, ["; ".join(reasons)])]))


def _is_instance(value: Any, value_type: ValueType) -> bool:
    """Returns True if a value has a type before any conversion."""
    if not isinstance(value, library("numpy", "datetime64")):
        value = builtin_value(value)
    match value_type.code:
        case TypeCode.BOOLEAN:
            return isinstance(value, bool)
        case TypeCode.INTEGER:
            low, high = value_type.bounds
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        case TypeCode.FLOAT | TypeCode.DOUBLE:
            return isinstance(value, float)
        case TypeCode.ENUM:
            return isinstance(value, str) and value in value_type.enum_numbers
        case TypeCode.STRING:
            return isinstance(value, str)
        case TypeCode.BYTES:
            return isinstance(value, bytes | bytearray)
        case TypeCode.TIMESTAMP:
            return isinstance(value, (dt.datetime, library("numpy", "datetime64")))
        case TypeCode.RECORD:
            return isinstance(value, Mapping) and value.keys() <= value_type.message.by_any_name.keys()
        case TypeCode.WRAPPER:
            is_map = value_type.content.cardinality is Cardinality.MAP
            return isinstance(value, Mapping if is_map else list | tuple)
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


def _type_name(value_type: ValueType) -> str:
    return value_type.record.name.rpartition(".")[2] if value_type.record else value_type.code.name.lower()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
