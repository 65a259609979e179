"""Python's values into messages of a model's own types.

Rule of this module: no value is changed on the way. What a field cannot hold exactly is refused with the field's name;
only a 32-bit float is rounded to what that type has, as it would be anywhere. numpy's and pandas' values are known
when they come, and neither is imported.
"""

import datetime as dt
import difflib
import math
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, NoReturn

from google.protobuf import struct_pb2

from mlflow_grpc_client._payloads import jsonable, kind_of, library
from mlflow_grpc_client._typed import tensors, timestamps
from mlflow_grpc_client._typed.contract import Field, Form, Kind, Record, Type

_READY = {Kind.DOUBLE: float, Kind.BOOLEAN: bool, Kind.INTEGER: int}
"""Types of which every value is what a field takes: lists of them need no look at each."""
_IN_PLACE = frozenset({Kind.BOOLEAN, Kind.INTEGER, Kind.FLOAT, Kind.DOUBLE, Kind.TEXT, Kind.BYTES, Kind.WORD})


FILLERS = {Kind.BOOLEAN: False, Kind.INTEGER: 0, Kind.FLOAT: 0.0, Kind.DOUBLE: 0.0, Kind.TEXT: "", Kind.BYTES: b""}
"""What stands in a field where there is no value."""
_ITEM_FILLERS = {**FILLERS, Kind.FLOAT: math.nan, Kind.DOUBLE: math.nan, Kind.WORD: 0}
"""And within a list: for those too who read nothing but the list."""

EXACT = 2**53
"""Whole numbers up to here are the same as a float."""

MOST_MESSAGES = 96
"""In one another, of a google.protobuf.Value: protobuf reads a hundred, and a few may be around it."""


class UnknownField(TypeError):
    """There is no field of a name, as far as is known."""


class MissingFields(ValueError):
    """Fields that the model needs are not given, and the message cannot tell the server so.

    A list or map that is left out is an empty one on the wire.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__("; ".join(f"{name}: missing, and the model needs it" for name in names))
        self.names = names


def fill(message: Any, record: Record, values: Mapping[str, Any], where: str = "") -> None:
    """Writes a record into a message. None is left out, but where any JSON value may stand: there it is null.

    Args:
        message: An empty message.
        record: What it holds.
        values: By the names in the model, or by those in protobuf.
        where: What the record is called in errors.

    Raises:
        TypeError: There is no such field, or a value is of another type than its field.
        ValueError: A value is of the right type, and its field cannot hold it; it is None, and its field has a default
            that stands on the wire for the same.
        MissingFields: A list or map is not given.

    """
    given, written = set(), set()
    for name, value in values.items():
        each = known_field(record, name, where)
        if each.name in given:
            raise TypeError(f"{_within(where, name)}: given twice, by its name in the model and by that in protobuf")
        given.add(each.name)
        if has_no_nan(each) and isinstance(value, float) and math.isnan(value):
            value = None  # noqa: PLW2901 - what pandas has for no value
        if not is_missing(value) or _takes_null(each):
            put(message, each, value, _within(where, name))
            written.add(each.name)
        elif each.name in record.defaulted:
            refuse_null(_within(where, name))
    absent = record.required - written
    if any(not record.fields[name].has_presence for name in absent):
        raise MissingFields([_within(where, each.label) for each in record.fields.values() if each.name in absent])


def refuse_null(where: str) -> NoReturn:
    """Refuses a null that would be taken for a default."""
    _refuse(where, "None would become the field's default: leave the field out for that")


def known_field(record: Record, name: Any, where: str = "") -> Field:
    """The field of a name; pandas' labels may be numbers, which messages have as texts.

    Raises:
        UnknownField: There is none.

    """
    found = record.spellings.get(str(name))
    if found is not None:
        return found
    labels = [each.label for each in record.fields.values()]
    close = difflib.get_close_matches(str(name), labels, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    there = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")  # noqa: PLR2004
    raise UnknownField(f"{_within(where, str(name))}: there is no such field; {hint}there are: {there or 'none'}")


def is_missing(value: Any) -> bool:
    """Whether a value is none: None, pandas' NA or a NaT. NaN is a number here; see `has_no_nan`."""
    if value is None:
        return True
    if isinstance(value, (dt.datetime, library("numpy", "datetime64"))):
        return bool(value != value)  # noqa: PLR0124 - a NaT
    none = library("pandas", "NA")
    return not isinstance(none, tuple) and value is none


def has_no_nan(each: Field) -> bool:
    """Whether NaN cannot be a value of a field, so that it is pandas' word for none."""
    return each.form is not Form.ONE or holds_no_nan(each.type)


def holds_no_nan(kind: Type) -> bool:
    """Whether NaN cannot be a value of a type; for a column of rows, which is a list of its values."""
    if kind.kind is Kind.BOX:
        return kind.content.form is not Form.ONE
    return kind.kind not in (Kind.FLOAT, Kind.DOUBLE, Kind.JSON, Kind.UNION)


def _takes_null(each: Field) -> bool:
    return each.type.kind is Kind.JSON and each.form is Form.ONE


def put(message: Any, each: Field, value: Any, where: str) -> None:
    """Writes a value into a field; see `fill` for the errors."""
    if each.form is Form.ONE:
        if each.type.kind in _IN_PLACE:
            setattr(message, each.name, scalar(value, each.type, where))
        else:
            part = getattr(message, each.name)
            part.SetInParent()
            write(part, each.type, value, where)
    elif each.form is Form.LIST:
        nulls = getattr(message, each.null_items) if each.null_items else None
        extend(getattr(message, each.name), each.type, _items(value, where), where, nulls)
    else:
        if not isinstance(value, Mapping):
            _unfit(where, value, "a dict")
        entries = getattr(message, each.name)
        has_nulls = each.null_items and any(map(_can_be_missing, set(map(type, value.values()))))
        for key, item in value.items():
            if not isinstance(key, str):
                _unfit(f"{where}: the key {key!r}", key, "a text")
            if has_nulls and is_missing(item):
                getattr(message, each.null_items).append(key)
                continue
            _check_null(item, each.type, f"{where}.{key}")
            if each.type.kind in _IN_PLACE:
                entries[key] = scalar(item, each.type, f"{where}.{key}")
            else:
                write(entries[key], each.type, item, f"{where}.{key}")


def extend(field: Any, kind: Type, items: Any, where: str, nulls: Any = None) -> None:
    """Writes values into a repeated field, and into another one, if there is one, the places of those that are none."""
    types = set(map(type, items))
    if kind.kind in _READY and types <= {_READY[kind.kind]} and not _is_beyond(items, kind):
        field.extend(items)
    elif kind.kind is Kind.TEXT and types == {str} and _extends(field, items):
        return
    elif nulls is not None and any(map(_can_be_missing, types)):
        _extend_around(field, kind, items, where, nulls)
    elif kind.kind in _IN_PLACE:
        field.extend([_item(item, kind, f"{where}[{place}]") for place, item in enumerate(items)])
    else:
        for place, item in enumerate(items):
            _check_null(item, kind, f"{where}[{place}]")
            write(field.add(), kind, item, f"{where}[{place}]")


def _can_be_missing(kind: type) -> bool:
    """Whether a value of a type may be none; see `is_missing`."""
    none = library("pandas", "NA")
    is_moment = issubclass(kind, (dt.datetime, library("numpy", "datetime64")))
    return kind is type(None) or is_moment or (not isinstance(none, tuple) and kind is type(none))


def _extend_around(field: Any, kind: Type, items: Any, where: str, nulls: Any) -> None:
    """Writes values, and where one is missing its place into `nulls`."""
    for place, item in enumerate(items):
        is_null = is_missing(item)
        if is_null:
            nulls.append(place)
        if kind.kind in _IN_PLACE:
            field.append(_ITEM_FILLERS[kind.kind] if is_null else scalar(item, kind, f"{where}[{place}]"))
        else:
            made = field.add()
            if not is_null:
                write(made, kind, item, f"{where}[{place}]")


def _extends(field: Any, items: Any) -> bool:
    """Writes texts as they are; False, and nothing is written, if UTF-8 cannot carry one of them."""
    before = len(field)
    try:
        field.extend(items)
    except ValueError:
        del field[before:]
        return False
    return True


def _item(value: Any, kind: Type, where: str) -> Any:
    _check_null(value, kind, where)
    return scalar(value, kind, where)


def _check_null(value: Any, kind: Type, where: str) -> None:
    """Refuses None in a list or map whose values have no room for it."""
    if value is not None or kind.kind is Kind.JSON:
        return
    if kind.kind is not Kind.BOX or kind.content.form is not Form.ONE:
        _refuse(where, "None has no room in this list or map: the model takes no null there, so leave it out")


def _is_beyond(items: Any, kind: Type) -> bool:
    low, high = kind.bounds
    return kind.kind is Kind.INTEGER and len(items) > 0 and (min(items) < low or max(items) > high)


def write(message: Any, kind: Type, value: Any, where: str) -> None:
    """Writes a value into a message that stands for it."""
    match kind.kind:
        case Kind.MOMENT:
            message.seconds, message.nanos = timestamps.seconds_and_nanos(_unpacked(value), where)
        case Kind.JSON:
            try:
                _write_json(message, value, where, MOST_MESSAGES)
            except RecursionError:
                raise ValueError(
                    f"{where}: it is nested too deeply, or contains itself: protobuf reads some {MOST_MESSAGES // 2} "
                    f"lists or {MOST_MESSAGES // 3} dicts in one another"
                ) from None
        case Kind.TENSOR:
            tensors.write(message, kind.message.fields["data"].type, value, where, scalar)
        case Kind.UNION:
            _write_alternative(message, kind.message, value, where)
        case Kind.BOX:
            if not (is_missing(value) and kind.content.form is Form.ONE):
                put(message, kind.content, value, where)
        case _:
            if not isinstance(value, Mapping):
                _unfit(where, value, "a dict")
            fill(message, kind.message, value, where)


def scalar(value: Any, kind: Type, where: str) -> Any:
    """A value as protobuf takes it, if it is exactly that."""
    value = _plain(value)
    match kind.kind:
        case Kind.BOOLEAN:
            return value if isinstance(value, bool) else _unfit(where, value, "a bool")
        case Kind.INTEGER:
            return _whole(value, kind.bounds, where)
        case Kind.FLOAT | Kind.DOUBLE:
            return _float(value, kind.kind, where)
        case Kind.TEXT:
            return _text(value, where)
        case Kind.BYTES:
            is_bytes = isinstance(value, bytes | bytearray | memoryview)
            return bytes(value) if is_bytes else _unfit(where, value, "bytes")
        case _:
            number = kind.numbers.get(value) if isinstance(value, str) else None
            return number or _refuse(where, f"{value!r} is none of {', '.join(map(repr, kind.numbers))}")


def _plain(value: Any) -> Any:
    """What an Enum's member or a scalar of numpy's holds; numpy's times are no numbers, though some unpack to such."""
    if isinstance(value, Enum):
        value = value.value
    value = _unpacked(value)
    if not isinstance(value, library("numpy", "generic")):
        return value
    times = (library("numpy", "datetime64"), library("numpy", "timedelta64"))
    plain = value.item()
    return value if isinstance(value, times) and not isinstance(plain, dt.date) else plain


def _unpacked(value: Any) -> Any:
    """What an array of numpy's without a dimension holds; one with a mask stays what it is."""
    if getattr(value, "ndim", None) != 0 or not isinstance(value, library("numpy", "ndarray")):
        return value
    return value if isinstance(value, library("numpy.ma", "MaskedArray")) else value[()]


def _whole(value: Any, bounds: tuple[int, int], where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _unfit(where, value, "a whole number")
    if isinstance(value, float) and not value.is_integer():
        _refuse(where, f"{value!r} is no whole number")
    low, high = bounds
    if not low <= value <= high:
        _refuse(where, f"{value!r} is not within {low} and {high}")
    return int(value)


def _float(value: Any, kind: Kind, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _unfit(where, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value and not math.isnan(number):
        _refuse(where, f"{value} is no float: whole numbers are up to 2^53, and some beyond")
    return tensors.single(number, where) if kind is Kind.FLOAT else number


def _text(value: Any, where: str) -> str:
    if isinstance(value, dt.date | dt.time) and not isinstance(value, dt.datetime):
        value = value.isoformat()
    elif isinstance(value, uuid.UUID):
        value = str(value)
    if not isinstance(value, str):
        _unfit(where, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(where, "the text has a lone surrogate, which UTF-8 cannot carry")
    return str(value)


def _write_json(message: Any, value: Any, where: str, room: int) -> None:
    """Writes any JSON value; `room` is for how many messages in one another."""
    if room < 0:
        raise RecursionError
    if isinstance(value, Enum):
        value = value.value
    if is_missing(value):
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = _json_number(value, where)
    elif isinstance(value, str):
        message.string_value = _text(value, where)
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        for key, each in value.items():
            if not isinstance(key, str):
                _unfit(f"{where}: the key {key!r}", key, "a text")
            _write_json(message.struct_value.fields[key], each, f"{where}.{key}", room - 3)
    elif isinstance(value, list | tuple):
        message.list_value.SetInParent()
        for place, each in enumerate(value):
            _write_json(message.list_value.values.add(), each, f"{where}[{place}]", room - 2)
    else:
        _write_json(message, _json_of(value, where), where, room)


def _json_number(value: float, where: str) -> float:
    if isinstance(value, int) and abs(value) > EXACT:
        _refuse(where, f"{value} would be a float, which is all that protobuf has for JSON: integers are up to 2^53")
    return float(value)


def _json_of(value: Any, where: str) -> Any:
    try:
        return jsonable(value)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None


def _write_alternative(message: Any, union: Record, value: Any, where: str) -> None:
    """Writes into the first alternative that can hold the value: of those whose own type it has, or else of all."""
    alternatives = list(union.fields.values())
    own = [each for each in alternatives if _is_of(value, each.type)]
    errors = []
    for each in (*own, *(each for each in alternatives if each not in own)):
        trial = type(message)()
        try:
            put(trial, each, value, where)
        except (TypeError, ValueError) as error:
            errors.append(error)
            continue
        message.CopyFrom(trial)
        return
    said = list(dict.fromkeys(map(str, errors[: len(own)])))
    if len(said) == 1:
        raise errors[0]
    why = f": {'; '.join(said)}" if said else ""
    _refuse(where, f"{kind_of(value)} is none of {', '.join(_name(each.type) for each in alternatives)}{why}")


def _is_of(value: Any, kind: Type) -> bool:
    """Whether a value has a type, before anything is converted."""
    if not isinstance(value, library("numpy", "datetime64")):
        value = _plain(value)
    match kind.kind:
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.INTEGER:
            low, high = kind.bounds
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        case Kind.FLOAT | Kind.DOUBLE:
            return isinstance(value, float)
        case Kind.WORD:
            return isinstance(value, str) and value in kind.numbers
        case Kind.TEXT:
            return isinstance(value, str)
        case Kind.BYTES:
            return isinstance(value, bytes | bytearray)
        case Kind.MOMENT:
            return isinstance(value, (dt.datetime, library("numpy", "datetime64")))
        case Kind.RECORD:
            return isinstance(value, Mapping) and value.keys() <= kind.message.spellings.keys()
        case Kind.BOX:
            return isinstance(value, Mapping if kind.content.form is Form.MAP else list | tuple)
        case _:
            return False


def _items(value: Any, where: str) -> Any:
    if isinstance(value, library("numpy", "ndarray")):
        tensors.check_unmasked(value, where)
        return list(value) if value.ndim else _unfit(where, value, "a list")
    if isinstance(value, library("pandas", "Series")):
        return value.tolist()
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping | AbstractSet) or not hasattr(
        value, "__iter__"
    ):
        _unfit(where, value, "a list")
    return list(value)


def _name(kind: Type) -> str:
    return kind.record.name.rpartition(".")[2] if kind.record is not None else kind.kind.name.lower()


def _within(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _unfit(where: str, value: Any, wanted: str) -> NoReturn:
    raise TypeError(f"{where}: {kind_of(value)} is not {wanted}")


def _refuse(where: str, what: str) -> NoReturn:
    raise ValueError(f"{where}: {what}")
