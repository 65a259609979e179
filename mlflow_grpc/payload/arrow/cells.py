"""Columns of Arrow from the single values that a model predicted.

Rule of this module: a value that its type does not hold exactly is an error, as in typed messages
(`mlflow_grpc.payload.protobuf.values`).
"""

import datetime
import json
from typing import Any

import numpy as np
import pyarrow as pa
from _mlflow_grpc_protocol import timestamps
from _mlflow_grpc_protocol.shapes import ScalarShape
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import SCALARS
from mlflow_grpc.contract.types import DataType, Enumeration, Field, ListOf, MapOf, Record, Scalar, Tensor, Type
from mlflow_grpc.payload.arrow import types
from mlflow_grpc.payload.protobuf.values import is_list, is_nothing, json_items, scalar, unwritable

_EXACT: dict[DataType, type] = {
    DataType.BOOLEAN: bool,
    DataType.INTEGER: int,
    DataType.LONG: int,
    DataType.DOUBLE: float,
    DataType.STRING: str,
    DataType.BINARY: bytes,
}
"""Python types whose values Arrow takes for a column as they are, or refuses."""

_NANOS_PER_SECOND, _NANOS_PER_MICROSECOND = 10**9, 1_000


def array_of(values: list[Any], column: Field, *, with_zone: bool) -> pa.Array:
    """Returns the column of predicted values.

    Args:
        values: The values; None where there is none.
        column: The output.
        with_zone: True if points in time are in UTC.

    Raises:
        UnserializableOutput: The column cannot hold exactly a value.
        ValueError: Arrow refuses a value.

    """
    type_ = types.row_type(column.type)
    arrow = types.arrow_type(type_, with_zone)
    if isinstance(type_, Scalar) and set(map(type, values)) <= {_EXACT.get(type_.data_type), type(None)}:
        return pa.array(values, arrow)
    return pa.array([_cell(value, type_, column.name, with_zone, ()) for value in values], arrow)


def _cell(value: Any, type_: Type, where: str, with_zone: bool, outer: tuple[Record, ...]) -> Any:
    """Converts a value for Arrow's builder."""
    if is_nothing(value):
        return None
    if types.is_json(type_, outer):
        return _json_text(value, where)
    match type_:
        case Scalar(data_type=DataType.DATETIME):
            return _moment(value, where, with_zone)
        case Scalar():
            return scalar(value, ScalarShape(SCALARS[type_.data_type]), where)
        case Enumeration():
            return scalar(value, ScalarShape(Proto.TYPE_STRING), where)
        case ListOf():
            items = _items(value, where)
            return [_cell(item, type_.items, f"{where}[{index}]", with_zone, outer) for index, item in enumerate(items)]
        case MapOf():
            pairs = json_items(_object(value, where), where)
            return [(key, _cell(item, type_.values, f"{where}.{key}", with_zone, outer)) for key, item in pairs]
        case Record():
            return _record(value, type_, where, with_zone, outer)
        case Tensor():
            return _tensor(value, type_, where)
    return value


def _record(value: Any, record: Record, where: str, with_zone: bool, outer: tuple[Record, ...]) -> dict[str, Any]:
    content = _object(value, where)
    fields = {column.name: column.type for column in record.fields}
    if unknown := content.keys() - fields.keys():
        unwritable(where, f"the fields {', '.join(map(str, unknown))}, which the schema does not have")
    inner = (*outer, record)
    return {name: _cell(item, fields[name], f"{where}.{name}", with_zone, inner) for name, item in content.items()}


def _tensor(value: Any, tensor: Tensor, where: str) -> Any:
    array = np.asarray(value)
    expected = np.dtype(tensor.dtype)
    sizes = array.shape
    if len(sizes) != len(tensor.shape) or any(
        size not in (-1, actual) for size, actual in zip(tensor.shape, sizes, strict=True)
    ):
        unwritable(where, f"the shape {list(sizes)} in place of {list(tensor.shape)}")
    if expected.kind in "biuf":
        converted = array.astype(expected)
        if not np.array_equal(converted, array, equal_nan=array.dtype.kind == "f"):
            unwritable(where, f"values that are not exact as {tensor.dtype}")
        array = converted
    return array.tolist()


def _moment(value: Any, where: str, with_zone: bool) -> int:
    """Returns a point in time as a count of nanoseconds, or of microseconds with a zone."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    try:
        seconds, nanos = timestamps.seconds_and_nanos(value)
    except (TypeError, ValueError) as error:
        unwritable(where, str(error))
    count = seconds * _NANOS_PER_SECOND + nanos
    if not with_zone:
        return count
    count, remainder = divmod(count, _NANOS_PER_MICROSECOND)
    if remainder:
        unwritable(where, "a time with nanoseconds, and the column has microseconds")
    return count


def _items(value: Any, where: str) -> Any:
    if not is_list(value):
        unwritable(where, f"a value of type {type(value).__name__} in place of a list")
    return value


def _object(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        unwritable(where, f"a value of type {type(value).__name__} in place of an object")
    return value


def _json_text(value: Any, where: str) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        unwritable(where, f"a value of type {type(value).__name__}, which has no JSON form")


def inferred(values: list[Any]) -> pa.Array:
    """Returns JSON values as a column of the type that they have in common, or of JSON texts if they have none."""
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError):
        pass
    else:
        if all(map(_keeps_booleans, values, array.to_pylist())):
            return array
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _keeps_booleans(value: Any, read: Any) -> bool:
    """Returns False if a boolean has become a number, as pyarrow makes it in a list of numbers."""
    if isinstance(value, dict):
        return all(_keeps_booleans(item, read[key]) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_keeps_booleans, value, read))
    return isinstance(value, bool) == isinstance(read, bool)
