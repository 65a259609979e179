"""Conversion of JSON texts into records for typed calls, and of answers into JSON texts.

Rule of this module: JSON has base64 for bytes, ISO 8601 for times (which `writer` reads itself), and NaN for missing
values of a table. Other values do not change.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from _mlflow_grpc_protocol.shapes import (
    FieldShape,
    MessageShape,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
    WrapperShape,
)
from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._payloads import jsonable
from mlflow_grpc_client._typed.contract import Contract, accepts_dicts
from mlflow_grpc_client._typed.payloads import Keywords, params_in, rows_in
from mlflow_grpc_client._typed.writer import lacks_nan


def input_of(text: str, contract: Contract) -> tuple[Any, dict[str, Any] | None]:
    """The record or rows in a JSON text, and the params. Raises ValueError for other texts, or bytes not in base64."""
    record = contract.row
    payload = parsed(text)
    names = record.by_any_name.keys()
    data, is_rows = rows_of(payload, contract)
    params = params_in(payload, names)
    if is_rows:
        return [_row(row, record, f"[{index}]") for index, row in enumerate(data)], params
    sole = record.sole_unnamed_field
    if sole is not None and not isinstance(data, Mapping):
        return Keywords({sole.name: _value(data, sole, sole.name)}), params
    return _row(data, record, ""), params


def rows_of(payload: Any, contract: Contract) -> tuple[Any, bool]:
    """The record or rows in a payload, and whether it is rows. Raises what `rows_in` raises.

    A model whose tensors have no dimension for rows takes a single record.
    """
    if not has_rows(contract):
        match payload:
            case {"inputs": data, **others} | {"instances": data, **others} if not others.keys() - {"params"}:
                return data, False
            case list():
                return payload, False
    return rows_in(payload, contract.row.by_any_name.keys())


def has_rows(contract: Contract) -> bool:
    """Returns True if a model takes rows. A model with tensors only takes rows if it has batches."""
    are_tensors = all(isinstance(field.shape, TensorShape) for field in contract.row.fields)
    return RpcKind.BATCH in contract.rpcs or not are_tensors


def record_in(text: str, contract: Contract) -> Any:
    """The record in a JSON text, for a stream. Raises what `input_of` raises."""
    record = contract.rpc(RpcKind.MANY).request
    return _row(parsed(text), record, "")


def dumps(answer: Any) -> str:
    """An answer as JSON on a single line."""
    return json.dumps(answer, ensure_ascii=False, default=jsonable)


def parsed(text: str) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a typed call takes a record in JSON: {error}") from None


def _row(row: Any, record: MessageShape, path: str) -> Any:
    sole = record.sole_unnamed_field
    if isinstance(row, Mapping) and not (sole is not None and accepts_dicts(sole)):
        return _fields(row, record, path)
    if sole is not None:
        return _value(row, sole, path or sole.label)
    if isinstance(row, list) and len(row) == len(record.fields):
        return [_value(value, field, path) for value, field in zip(row, record.fields, strict=True)]
    return row


def _fields(values: Mapping[str, Any], record: MessageShape, path: str) -> dict[str, Any]:
    fields = {}
    for name, value in values.items():
        field = record.by_any_name.get(name)
        fields[name] = value if field is None else _value(value, field, f"{path}.{name}" if path else name)
    return fields


def _value(value: Any, field: FieldShape, path: str) -> Any:
    if field.is_repeated and isinstance(value, list):
        return [_single(item, field.shape, f"{path}[{index}]") for index, item in enumerate(value)]
    if field.is_map and isinstance(value, dict):
        return {key: _single(item, field.shape, f"{path}.{key}") for key, item in value.items()}
    return _single(value, field.shape, path)


def _single(value: Any, shape: Shape, path: str) -> Any:
    if isinstance(value, float) and math.isnan(value) and not _holds_nan(shape):
        return _value(value, shape.content, path) if isinstance(shape, WrapperShape) else None
    match shape:
        case TimestampShape() if value == "NaT":
            return None
        case ScalarShape(type=FieldDescriptor.TYPE_BYTES) if isinstance(value, str):
            try:
                return base64.b64decode("".join(value.split()), validate=True)  # MLflow's base64 has line breaks.
            except binascii.Error:
                message = "the model takes bytes, which are base64 in JSON; this is not base64"
                raise ValueError(f"{path}: {message}") from None
        case MessageShape() if isinstance(value, dict):
            return _fields(value, shape, path)
        case WrapperShape():
            return _value(value, shape.content, path)
        case TensorShape():
            return _elements(value, shape.element, path)
    return value


def _holds_nan(shape: Shape) -> bool:
    return isinstance(shape, TensorShape) or (not isinstance(shape, WrapperShape) and not lacks_nan(shape))


def _elements(value: Any, element: ScalarShape, path: str) -> Any:
    """The elements of a tensor. MLflow reads null among floats as NaN, and writes NaN as null."""
    if isinstance(value, list):
        return [_elements(item, element, path) for item in value]
    return math.nan if value is None and _holds_nan(element) else _single(value, element, path)
