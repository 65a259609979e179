"""Conversion of predicted values to values that protobuf messages can hold.

Rule of this module: a type of the signature decides the conversion, and MLflow's own encoder does it.
"""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pydantic
from _mlflow_grpc_protocol.json_values import MAX_LISTS
from mlflow.types import DataType
from mlflow.types.schema import AnyType, Array, Map, Object

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.protobuf.values import is_list, is_nothing

Convert = Callable[[Any], Any]


def converter(schema_type: Any) -> Convert | None:
    """Returns a function that converts values of a type; None if messages can hold them as they are."""
    if schema_type == DataType.string:
        return _text_value
    if isinstance(schema_type, AnyType):
        return json_value
    if isinstance(schema_type, Object):
        return _object_converter({prop.name: converter(prop.dtype) for prop in schema_type.properties})
    if isinstance(schema_type, Array) and (convert_item := converter(schema_type.dtype)) is not None:
        return lambda value: [convert(convert_item, item) for item in value] if is_list(value) else value
    if isinstance(schema_type, Map) and (convert_value := converter(schema_type.value_type)) is not None:
        return lambda value: (
            {key: convert(convert_value, item) for key, item in value.items()} if isinstance(value, dict) else value
        )
    return None


def convert(function: Convert | None, value: Any) -> Any:
    """Returns the converted value; a null, or any value if there is no conversion function, is returned as it is."""
    return value if function is None or is_nothing(value) else function(value)


def plain_value(value: Any) -> Any:
    """Returns the dictionary of a pydantic object, the value of an array without dimensions, or the value itself.

    An array with named columns or with a mask becomes a list.
    """
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump()
    if isinstance(value, np.ndarray):
        if type(value) is not np.ndarray or value.dtype.names:
            return value.tolist()
        return value if value.ndim else value[()]
    return value.item() if isinstance(value, np.void) else value


def json_value(value: Any, depth: int = 0) -> Any:
    """Returns the JSON value of MLflow's encoder; a value that the encoder does not support is returned as it is."""
    if value is None or isinstance(value, str | int | float) or is_nothing(value) or depth > MAX_LISTS:
        return value
    if isinstance(value, dict):
        return {key: json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, depth + 1) for item in value]
    try:
        encoded = internals.json_default(value)
    except TypeError:
        return value
    return encoded if isinstance(encoded, str | int | float) else json_value(encoded, depth)


def _object_converter(properties: dict[str, Convert | None]) -> Convert:
    def convert_object(value: Any) -> Any:
        content = plain_value(value)
        if not isinstance(content, dict):
            return content
        return {name: convert(properties.get(name), item) for name, item in content.items()}

    return convert_object


def _text_value(value: Any) -> Any:
    """Returns bytes in base64, and a point in time as MLflow writes it: UTC is +00:00, while pydantic writes Z."""
    if isinstance(value, bytes | bytearray):
        return internals.json_default(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value
