"""Python values into messages of a model's own types.

Rule of this module: no value changes on the way, so the checks here are those that the server cannot make. A value that
a field cannot hold exactly is an error with the field's path; only a 32-bit float is rounded. numpy and pandas are not
imported.
"""

import datetime as dt
import math
import uuid
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, NoReturn

from _mlflow_grpc_protocol.json_values import MAX_EXACT_INTEGER
from google.protobuf import struct_pb2

from mlflow_grpc_client._payloads import jsonable, library, type_label
from mlflow_grpc_client._typed import tensors, timestamps
from mlflow_grpc_client._typed.contract import Cardinality, Field, Record, TypeCode, ValueType

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

MAX_JSON_MESSAGES = 96
"""Maximum nesting of messages in a google.protobuf.Value. protobuf reads 100, and a few may be around it."""

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

    Args:
        message: An empty message.
        record: The fields of the message.
        values: The values by field names, of the model or of protobuf.
        path: The path of the record in error messages.

    Raises:
        TypeError: There is no such field, or a value has a wrong type.
        ValueError: A field cannot hold its value, or the value is None and would become the field's default.
        MissingFields: A required list or map is missing.

    """
    seen, written = set(), set()
    for name, value in values.items():
        column, column_path = find_field(record, name, path), _join(path, name)
        if column.name in seen:
            raise TypeError(f"{column_path}: given twice, by its name in the model and by that in protobuf")
        seen.add(column.name)
        is_null = is_missing(value) or (nan_means_null(column) and isinstance(value, float) and math.isnan(value))
        if not is_null or column.is_nullable_json:
            put(message, column, None if is_null else value, column_path)
            written.add(column.name)
        elif column.name in record.defaulted:
            reject_null(column_path)
    absent = record.required - written
    if any(not record.fields[name].has_presence for name in absent):
        raise MissingFields([_join(path, column.label) for column in record.fields.values() if column.name in absent])


def reject_null(path: str) -> NoReturn:
    """Raises ValueError for a null that would become a default on the wire."""
    _refuse(path, "None would become the field's default: leave the field out for that")


def find_field(record: Record, name: Any, path: str = "") -> Field:
    """The field of a name. pandas' labels can be numbers, which are texts in messages.

    Raises:
        UnknownField: There is no such field.

    """
    column = record.by_any_name.get(str(name))
    if column is None:
        labels = [column.label for column in record.fields.values()]
        more = f" and {len(labels) - MAX_LABELS} more" if len(labels) > MAX_LABELS else ""
        listed = ", ".join(labels[:MAX_LABELS]) + more
        raise UnknownField(f"{_join(path, str(name))}: there is no such field; there are: {listed or 'none'}")
    return column


def is_missing(value: Any) -> bool:
    """Whether a value is None, pandas' NA or NaT. NaN is a number here; see `nan_means_null`."""
    if value is None:
        return True
    if isinstance(value, (dt.datetime, library("numpy", "datetime64"))):
        return bool(value != value)  # noqa: PLR0124 - NaT
    # The place holder for a library that is absent is a tuple.
    return not isinstance(value, tuple) and value is library("pandas", "NA")


def nan_means_null(column: Field) -> bool:
    """Whether a field cannot hold NaN, so that NaN is pandas' mark for a missing value."""
    return column.cardinality is not Cardinality.SINGULAR or type_lacks_nan(column.type)


def type_lacks_nan(value_type: ValueType) -> bool:
    """Whether a type cannot hold NaN."""
    if value_type.code is TypeCode.WRAPPER:
        return value_type.content.cardinality is not Cardinality.SINGULAR
    return value_type.code not in (TypeCode.FLOAT, TypeCode.DOUBLE, TypeCode.JSON, TypeCode.UNION)


def put(message: Any, column: Field, value: Any, path: str) -> None:
    """Writes a value into a field; errors as of `fill`."""
    if column.cardinality is Cardinality.REPEATED:
        items = _items(value, path)
        nulls = _missing_items(items) if column.null_items else []
        if nulls:
            getattr(message, column.null_items).extend(nulls)
        extend(getattr(message, column.name), column.type, items, path, nulls)
    elif column.cardinality is Cardinality.MAP:
        _put_map(message, column, value, path)
    elif column.type.code in _SCALARS:
        setattr(message, column.name, scalar(value, column.type, path))
    else:
        submessage = getattr(message, column.name)
        submessage.SetInParent()
        write(submessage, column.type, value, path)


def _put_map(message: Any, column: Field, value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        _mistype(path, value, "a dict")
    entries = getattr(message, column.name)
    for key, item in value.items():
        if not isinstance(key, str):
            _mistype(f"{path}: the key {key!r}", key, "a text")
        if column.null_items and is_missing(item):
            getattr(message, column.null_items).append(key)
            continue
        _check_null(item, column.type, f"{path}.{key}")
        if column.type.code in _SCALARS:
            entries[key] = scalar(item, column.type, f"{path}.{key}")
        else:
            write(entries[key], column.type, item, f"{path}.{key}")


def extend(
    field: Any,
    value_type: ValueType,
    items: Any,
    path: str,
    nulls: Collection[int] = (),
    fillers: Mapping[TypeCode, Any] = _NULL_ITEMS,
) -> None:
    """Writes values into a repeated field.

    Args:
        field: The repeated field.
        value_type: The type of its values.
        items: The values.
        path: The path of the field in error messages.
        nulls: Indexes of null items.
        fillers: Values to send for null items.

    """
    code, null_indexes = value_type.code, frozenset(nulls)
    if null_indexes and code in fillers:
        items = [fillers[code] if index in null_indexes else item for index, item in enumerate(items)]
    if code in _NATIVE and set(map(type, items)) == {_NATIVE[code]} and _extend_natively(field, items):
        return
    for index, item in enumerate(items):
        item_path = f"{path}[{index}]"
        is_null = index in null_indexes
        if not is_null:
            _check_null(item, value_type, item_path)
        if code in _SCALARS:
            field.append(item if is_null else scalar(item, value_type, item_path))
        elif is_null:
            field.add()
        else:
            write(field.add(), value_type, item, item_path)


def _missing_items(items: Any) -> list[int]:
    """Indexes of missing values; types whose values are never missing are recognised without a look at each value."""
    if not any(map(_can_be_missing, set(map(type, items)))):
        return []
    return [index for index, item in enumerate(items) if is_missing(item)]


def _can_be_missing(item_type: type) -> bool:
    is_time = issubclass(item_type, (dt.datetime, library("numpy", "datetime64")))
    is_na = item_type is not tuple and item_type is type(library("pandas", "NA"))
    return is_time or is_na or item_type is type(None)


def _extend_natively(field: Any, items: Any) -> bool:
    """Writes values without a look at each; False, and nothing is written, if protobuf refuses a value."""
    size = len(field)
    try:
        field.extend(items)
    except ValueError:  # Out of bounds, or a lone surrogate.
        del field[size:]
        return False
    return True


def _check_null(value: Any, value_type: ValueType, path: str) -> None:
    """Raises ValueError for None in a list or map whose items cannot be null."""
    if value is not None or value_type.code is TypeCode.JSON:
        return
    if value_type.code is not TypeCode.WRAPPER or value_type.content.cardinality is not Cardinality.SINGULAR:
        _refuse(path, "None has no room in this list or map: the model takes no null there, so leave it out")


def write(message: Any, value_type: ValueType, value: Any, path: str) -> None:
    """Writes a value into the message of its type; errors as of `fill`."""
    match value_type.code:
        case TypeCode.TIMESTAMP:
            message.seconds, message.nanos = timestamps.seconds_and_nanos(_unpack(value), path)
        case TypeCode.JSON:
            try:
                _write_json(message, value, path, MAX_JSON_MESSAGES)
            except RecursionError:
                lists, dicts = MAX_JSON_MESSAGES // 2, MAX_JSON_MESSAGES // 3
                limits = f"protobuf reads up to {lists} lists or {dicts} dicts within each other"
                _refuse(path, f"it is nested too deeply, or contains itself: {limits}")
        case TypeCode.TENSOR:
            tensors.write(message, value_type.message.fields["data"].type, value, path, scalar)
        case TypeCode.UNION:
            _write_alternative(message, value_type.message, value, path)
        case TypeCode.WRAPPER:
            if not (is_missing(value) and value_type.content.cardinality is Cardinality.SINGULAR):
                put(message, value_type.content, value, path)
        case _:
            if not isinstance(value, Mapping):
                _mistype(path, value, "a dict")
            fill(message, value_type.message, value, path)


def scalar(value: Any, value_type: ValueType, path: str) -> Any:
    """A value for a scalar field, exactly as it was; errors as of `fill`."""
    value = _python_value(value)
    match value_type.code:
        case TypeCode.BOOLEAN:
            return value if isinstance(value, bool) else _mistype(path, value, "a bool")
        case TypeCode.INTEGER:
            return _integer(value, value_type.bounds, path)
        case TypeCode.FLOAT | TypeCode.DOUBLE:
            return _float(value, value_type.code, path)
        case TypeCode.STRING:
            return _string(value, path)
        case TypeCode.BYTES:
            is_bytes = isinstance(value, bytes | bytearray | memoryview)
            return bytes(value) if is_bytes else _mistype(path, value, "bytes")
        case _:
            number = value_type.enum_numbers.get(value) if isinstance(value, str) else None
            return number or _refuse(path, f"{value!r} is none of {', '.join(map(repr, value_type.enum_numbers))}")


def _python_value(value: Any) -> Any:
    """The value of an Enum's member or of a numpy scalar. numpy's times stay: some would become bare integers."""
    if isinstance(value, Enum):
        value = value.value
    value = _unpack(value)
    if not isinstance(value, library("numpy", "generic")):
        return value
    times = (library("numpy", "datetime64"), library("numpy", "timedelta64"))
    item = value.item()
    return value if isinstance(value, times) and not isinstance(item, dt.date) else item


def _unpack(value: Any) -> Any:
    """The value in a numpy array without dimensions; a masked array stays."""
    if getattr(value, "ndim", None) != 0 or not isinstance(value, library("numpy", "ndarray")):
        return value
    return value if isinstance(value, library("numpy.ma", "MaskedArray")) else value[()]


def _integer(value: Any, bounds: tuple[int, int], path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _mistype(path, value, "a whole number")
    if isinstance(value, float) and not value.is_integer():
        _refuse(path, f"{value!r} is no whole number")
    low, high = bounds
    if not low <= value <= high:
        _refuse(path, f"{value!r} is not within {low} and {high}")
    return int(value)


def _float(value: Any, code: TypeCode, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _mistype(path, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value and not math.isnan(number):
        _refuse(path, f"{value} is no float: whole numbers are up to 2^53, and some beyond")
    return tensors.single(number, path) if code is TypeCode.FLOAT else number


def _string(value: Any, path: str) -> str:
    if isinstance(value, dt.date | dt.time) and not isinstance(value, dt.datetime):
        value = value.isoformat()
    elif isinstance(value, uuid.UUID):
        value = str(value)
    if not isinstance(value, str):
        _mistype(path, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(path, "the text has a lone surrogate, which UTF-8 cannot carry")
    return str(value)


def _write_json(message: Any, value: Any, path: str, depth: int) -> None:
    """Writes any JSON value, with at most `depth` nested messages."""
    if depth < 0:
        raise RecursionError
    if isinstance(value, Enum):
        value = value.value
    if is_missing(value):
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = _json_number(value, path)
    elif isinstance(value, str):
        message.string_value = _string(value, path)
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        for key, item in value.items():
            if not isinstance(key, str):
                _mistype(f"{path}: the key {key!r}", key, "a text")
            _write_json(message.struct_value.fields[key], item, f"{path}.{key}", depth - 3)
    elif isinstance(value, list | tuple):
        message.list_value.SetInParent()
        for index, item in enumerate(value):
            _write_json(message.list_value.values.add(), item, f"{path}[{index}]", depth - 2)
    else:
        _write_json(message, _json_value(value, path), path, depth)


def _json_number(value: float, path: str) -> float:
    if isinstance(value, int) and abs(value) > MAX_EXACT_INTEGER:
        _refuse(path, f"{value} would be a float, which is all that protobuf has for JSON: integers are up to 2^53")
    return float(value)


def _json_value(value: Any, path: str) -> Any:
    try:
        return jsonable(value)
    except TypeError as error:
        raise TypeError(f"{path}: {error}") from None


def _write_alternative(message: Any, union: Record, value: Any, path: str) -> None:
    """Writes into the first alternative that can hold the value; alternatives of the value's own type come first."""
    own_type = [column for column in union.fields.values() if _is_instance(value, column.type)]
    alternatives = [*own_type, *(column for column in union.fields.values() if column not in own_type)]
    errors = []
    for column in alternatives:
        candidate = type(message)()
        try:
            put(candidate, column, value, path)
        except (TypeError, ValueError) as error:
            errors.append(error)
            continue
        message.CopyFrom(candidate)
        return
    reasons = list(dict.fromkeys(map(str, errors[: len(own_type)])))
    if len(reasons) == 1:
        raise errors[0]
    names = ", ".join(_type_name(column.type) for column in union.fields.values())
    _refuse(path, ": ".join([f"{type_label(value)} is none of {names}", *filter(None, ["; ".join(reasons)])]))


def _is_instance(value: Any, value_type: ValueType) -> bool:
    """Whether a value has a type before any conversion."""
    if not isinstance(value, library("numpy", "datetime64")):
        value = _python_value(value)
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
        return list(value) if value.ndim else _mistype(path, value, "a list")
    if isinstance(value, library("pandas", "Series")):
        return value.tolist()
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    if is_text or isinstance(value, Mapping | AbstractSet) or not hasattr(value, "__iter__"):
        _mistype(path, value, "a list")
    return list(value)


def _type_name(value_type: ValueType) -> str:
    return value_type.record.name.rpartition(".")[2] if value_type.record else value_type.code.name.lower()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _mistype(path: str, value: Any, expected: str) -> NoReturn:
    raise TypeError(f"{path}: {type_label(value)} is not {expected}")


def _refuse(path: str, reason: str) -> NoReturn:
    raise ValueError(f"{path}: {reason}")
