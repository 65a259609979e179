"""Conversion of messages of a model's own types into Python values.

Rule of this module: no value changes, except that timestamps are truncated to microseconds.
"""

from typing import Any

from _mlflow_grpc_protocol import json_values
from _mlflow_grpc_protocol.typed_terms import Cardinality

from mlflow_grpc_client._typed import tensors, timestamps
from mlflow_grpc_client._typed.contract import Field, Record, TypeCode, ValueType

_NATIVE = frozenset(
    {TypeCode.BOOLEAN, TypeCode.INTEGER, TypeCode.FLOAT, TypeCode.DOUBLE, TypeCode.STRING, TypeCode.BYTES}
)


def read_record(message: Any, record: Record) -> dict[str, Any]:
    """The fields of a record by their names in the model, None for absent fields; extra values are merged in."""
    fields = {field.label: read(message, field) for field in record.fields.values()}
    return fields if record.extra is None else {**fields, **read(message, record.extra)}


def read(message: Any, field: Field) -> Any:
    """The value of a field; None if it is absent or null."""
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.null_flag and getattr(message, field.null_flag):
        return None
    value = getattr(message, field.name)
    if field.cardinality is Cardinality.SINGULAR:
        return read_value(value, field.type)
    if field.cardinality is Cardinality.MAP:
        items: Any = {key: read_value(value[key], field.type) for key in value}
    else:
        items = read_values(value, field.type)
    for key in getattr(message, field.null_items) if field.null_items else ():
        if field.cardinality is Cardinality.MAP or key < len(items):
            items[key] = None
    return items


def read_values(values: Any, value_type: ValueType) -> list[Any]:
    """The values of a repeated field."""
    if value_type.code in _NATIVE:
        return list(values)
    return [read_value(value, value_type) for value in values]


def read_value(value: Any, value_type: ValueType) -> Any:
    """The Python value of a field's value."""
    match value_type.code:
        case TypeCode.ENUM:
            return value_type.enum_names.get(value)
        case TypeCode.TIMESTAMP:
            return timestamps.datetime_of(value)
        case TypeCode.JSON:
            return json_values.read(value)
        case TypeCode.TENSOR:
            return tensors.read(value)
        case TypeCode.UNION:
            alternative = value.WhichOneof("value")
            return None if alternative is None else read(value, value_type.message.fields[alternative])
        case TypeCode.WRAPPER:
            return read(value, value_type.content)
        case TypeCode.RECORD:
            return read_record(value, value_type.message)
        case _:
            return value
