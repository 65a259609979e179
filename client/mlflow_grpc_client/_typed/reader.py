"""Answers out of messages of a model's own types.

Rule of this module: no value is changed on the way, but for what is finer than a microsecond in points in time.
"""

import math
from typing import Any

from mlflow_grpc_client._typed import tensors, timestamps
from mlflow_grpc_client._typed.contract import Field, Form, Kind, Record, Type
from mlflow_grpc_client._typed.writer import EXACT

_AS_THEY_ARE = frozenset({Kind.BOOLEAN, Kind.INTEGER, Kind.FLOAT, Kind.DOUBLE, Kind.TEXT, Kind.BYTES})


def read_record(message: Any, record: Record) -> dict[str, Any]:
    """All fields of a record by their names in the model, None for those that are not there; and what it has beside."""
    fields = {each.label: read(message, each) for each in record.fields.values()}
    return fields if record.extra is None else {**fields, **read(message, record.extra)}


def read(message: Any, each: Field) -> Any:
    """The value of a field; None if it has none."""
    if each.has_presence and not message.HasField(each.name):
        return None
    if each.null and getattr(message, each.null):
        return None
    value = getattr(message, each.name)
    if each.form is Form.ONE:
        return read_value(value, each.type)
    if each.form is Form.MAP:
        items: Any = {key: read_value(value[key], each.type) for key in value}
    else:
        items = read_values(value, each.type)
    if each.null_items and (nulls := getattr(message, each.null_items)):
        for place in nulls:
            if each.form is Form.MAP or place < len(items):
                items[place] = None
    return items


def read_values(values: Any, kind: Type) -> list[Any]:
    """The values of a repeated field."""
    if kind.kind in _AS_THEY_ARE:
        return list(values)
    return [read_value(value, kind) for value in values]


def read_value(value: Any, kind: Type) -> Any:
    """What a value of a message is in Python."""
    match kind.kind:
        case Kind.WORD:
            return kind.words.get(value)
        case Kind.MOMENT:
            return timestamps.datetime_of(value)
        case Kind.JSON:
            return _json_of(value)
        case Kind.TENSOR:
            return tensors.read(value)
        case Kind.UNION:
            chosen = value.WhichOneof("value")
            return None if chosen is None else read(value, kind.message.fields[chosen])
        case Kind.BOX:
            return read(value, kind.content)
        case Kind.RECORD:
            return read_record(value, kind.message)
        case _:
            return value


def _json_of(value: Any) -> Any:
    """JSON knows one kind of number: a whole one is an int."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return (
                int(number) if number.is_integer() and abs(number) <= EXACT and not _is_minus_zero(number) else number
            )
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_json_of(each) for each in value.list_value.values]
        case "struct_value":
            return {key: _json_of(each) for key, each in value.struct_value.fields.items()}
        case _:
            return None


def _is_minus_zero(number: float) -> bool:
    """Of which there is no integer."""
    return not number and math.copysign(1, number) < 0
