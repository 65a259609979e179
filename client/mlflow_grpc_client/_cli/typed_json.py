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

from _mlflow_grpc_protocol.typed_terms import Cardinality, RpcKind

from mlflow_grpc_client._payloads import jsonable
from mlflow_grpc_client._typed.contract import Contract, Field, Record, TypeCode, ValueType
from mlflow_grpc_client._typed.payloads import Keywords, params_in, rows_in

_WITH_NAN = frozenset({TypeCode.FLOAT, TypeCode.DOUBLE, TypeCode.JSON, TypeCode.UNION, TypeCode.TENSOR})


def input_of(text: str, contract: Contract) -> tuple[Any, dict[str, Any] | None]:
    """The record or rows in a JSON text, and the params.

    Raises:
        ValueError: The text is not JSON, or a text for bytes is not base64.

    """
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
    are_tensors = all(field.type.code is TypeCode.TENSOR for field in contract.row.fields.values())
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


def _row(row: Any, record: Record, path: str) -> Any:
    sole = record.sole_unnamed_field
    if isinstance(row, Mapping) and not (sole is not None and sole.accepts_dicts):
        return _fields(row, record, path)
    if sole is not None:
        return _value(row, sole, path or sole.label)
    columns = list(record.fields.values())
    if isinstance(row, list) and len(row) == len(columns):
        return [_value(value, field, path) for value, field in zip(row, columns, strict=True)]
    return row


def _fields(values: Mapping[str, Any], record: Record, path: str) -> dict[str, Any]:
    fields = {}
    for name, value in values.items():
        field = record.by_any_name.get(name)
        fields[name] = value if field is None else _value(value, field, f"{path}.{name}" if path else name)
    return fields


def _value(value: Any, field: Field, path: str) -> Any:
    if field.cardinality is Cardinality.REPEATED and isinstance(value, list):
        return [_single(item, field.type, f"{path}[{index}]") for index, item in enumerate(value)]
    if field.cardinality is Cardinality.MAP and isinstance(value, dict):
        return {key: _single(item, field.type, f"{path}.{key}") for key, item in value.items()}
    return _single(value, field.type, path)


def _single(value: Any, value_type: ValueType, path: str) -> Any:
    code = value_type.code
    if isinstance(value, float) and math.isnan(value) and code not in _WITH_NAN:
        return _value(value, value_type.content, path) if code is TypeCode.WRAPPER else None
    if code is TypeCode.TIMESTAMP and value == "NaT":
        return None
    if code is TypeCode.BYTES and isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)  # MLflow's base64 has line breaks.
        except binascii.Error:
            raise ValueError(f"{path}: the model takes bytes, which are base64 in JSON; this is not base64") from None
    if code is TypeCode.RECORD and isinstance(value, dict):
        return _fields(value, value_type.message, path)
    if code is TypeCode.WRAPPER:
        return _value(value, value_type.content, path)
    if code is TypeCode.TENSOR:
        return _elements(value, value_type.message.fields["data"].type, path)
    return value


def _elements(value: Any, element_type: ValueType, path: str) -> Any:
    """The elements of a tensor. MLflow reads null among floats as NaN, and writes NaN as null."""
    if isinstance(value, list):
        return [_elements(item, element_type, path) for item in value]
    return math.nan if value is None and element_type.code in _WITH_NAN else _single(value, element_type, path)
