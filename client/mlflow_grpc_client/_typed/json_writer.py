"""Conversion of Python values into google.protobuf.Value."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from _mlflow_grpc_protocol.json_values import (
    LIST_MESSAGES,
    MAX_EXACT_INTEGER,
    MAX_LISTS,
    MAX_MESSAGES,
    MAX_OBJECTS,
    OBJECT_MESSAGES,
)
from google.protobuf import struct_pb2

from mlflow_grpc_client._payloads import jsonable
from mlflow_grpc_client._typed.scalars import check_key, is_missing, refuse, string


def write(message: Any, value: Any, path: str) -> None:
    """Writes any JSON value whose numbers are exact as a double."""
    try:
        _write(message, value, path, MAX_MESSAGES)
    except RecursionError:
        limits = f"protobuf reads up to {MAX_LISTS} lists or {MAX_OBJECTS} dicts within each other"
        refuse(path, f"it is nested too deeply, or contains itself: {limits}")


def _write(message: Any, value: Any, path: str, depth: int) -> None:
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
        message.string_value = string(value, path)
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        for key, item in value.items():
            check_key(key, path)
            _write(message.struct_value.fields[key], item, f"{path}.{key}", depth - OBJECT_MESSAGES)
    elif isinstance(value, list | tuple):
        message.list_value.SetInParent()
        for index, item in enumerate(value):
            _write(message.list_value.values.add(), item, f"{path}[{index}]", depth - LIST_MESSAGES)
    else:
        _write(message, _json_value(value, path), path, depth)


def _json_number(value: float, path: str) -> float:
    if isinstance(value, int) and abs(value) > MAX_EXACT_INTEGER:
        refuse(path, f"{value} would be a float, which is all that protobuf has for JSON: integers are up to 2^53")
    return float(value)


def _json_value(value: Any, path: str) -> Any:
    try:
        return jsonable(value)
    except TypeError as error:
        raise TypeError(f"{path}: {error}") from None
