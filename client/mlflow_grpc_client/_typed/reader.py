"""Conversion of messages of a model's own types into Python values.

Rule of this module: no value changes, except that timestamps are truncated to microseconds.
"""

from typing import Any

from _mlflow_grpc_protocol import json_values
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
)

from mlflow_grpc_client._typed import tensors, timestamps


def read_record(message: Any, shape: MessageShape) -> dict[str, Any]:
    """The fields of a record by their names in the model, None for absent fields; extra values are merged in."""
    record = {field.label: read(message, field) for field in shape.fields}
    if shape.extra:
        extra = getattr(message, shape.extra)
        record.update((key, json_values.read(extra[key])) for key in extra)
    return record


def read(message: Any, field: FieldShape) -> Any:
    """The value of a field; None if it is absent or null."""
    if field.is_singular:
        return read_value(getattr(message, field.name), field.shape) if message.HasField(field.name) else None
    if field.null_flag and getattr(message, field.null_flag):
        return None
    value = getattr(message, field.name)
    items: Any = (
        {key: read_value(value[key], field.shape) for key in value} if field.is_map else read_values(value, field.shape)
    )
    for key in getattr(message, field.null_items) if field.null_items else ():
        if field.is_map or key < len(items):
            items[key] = None
    return items


def read_values(values: Any, shape: Shape) -> list[Any]:
    """The values of a repeated field."""
    return list(values) if isinstance(shape, ScalarShape) else [read_value(value, shape) for value in values]


def read_value(value: Any, shape: Shape) -> Any:
    """The Python value of a field's value."""
    match shape:
        case ScalarShape():
            return value
        case EnumShape():
            return shape.values.get(value)
        case TimestampShape():
            return timestamps.datetime_of(value)
        case ValueShape():
            return json_values.read(value)
        case TensorShape():
            return tensors.read(value)
        case OneofShape():
            chosen = value.WhichOneof("value")
            return None if chosen is None else read_value(getattr(value, chosen), shape.alternatives[chosen])
        case WrapperShape():
            return read(value, shape.content)
        case MessageShape():
            return read_record(value, shape)
