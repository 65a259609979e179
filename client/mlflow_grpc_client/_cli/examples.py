"""Example records as Python source and as JSON, to be pasted.

Rule of this module: the source needs no import, so times are texts, and a record that cannot be sent is not written.
"""

import base64
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from _mlflow_grpc_protocol.shapes import MessageShape
from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc_client._cli import typed_json
from mlflow_grpc_client._typed import writer
from mlflow_grpc_client._typed.contract import Contract, is_nullable_json
from mlflow_grpc_client.errors import PredictError


@dataclass(frozen=True, slots=True)
class Example:
    """A typed call to paste."""

    arguments: str
    """The arguments of `predict` in Python."""
    payload: str
    """The payload for `mlflow-grpc-predict --typed`."""


def example_in(payload: str, contract: Contract) -> Example | None:
    """The first record of an example payload as a typed call; None if no record can be sent."""
    try:
        data, params = typed_json.input_of(payload, contract)
        record = contract.rpc(RpcKind.ONE).request
        _, is_rows = typed_json.rows_of(typed_json.parsed(payload), contract)
        fields = _present(_first(data, record, is_rows=is_rows), record)
        if record.sole_unnamed_field is None:
            fields = {name: _with_base64(value) for name, value in fields.items()}
        _check(fields, params, contract)
    except (LookupError, TypeError, ValueError, PredictError):  # The payload may be CSV, or lack the model's fields.
        return None
    if any(not name.isidentifier() or keyword.iskeyword(name) or name == "params" for name in fields):
        arguments = [_source(fields)]
    else:
        arguments = [f"{name}={_source(value)}" for name, value in fields.items()]
    if params and contract.params is not None:
        arguments.append(f"params={_source(params)}")
    return Example(", ".join(arguments), _payload(fields, params, record, has_rows=typed_json.has_rows(contract)))


def _first(data: Any, record: MessageShape, *, is_rows: bool) -> dict[str, Any]:
    """The fields of the first record by name."""
    row = data[0] if is_rows else data
    sole = record.sole_unnamed_field
    if sole is not None and (is_rows or not isinstance(row, Mapping) or sole.name not in row):
        return {sole.name: row}
    if isinstance(row, list):
        return {field.name: value for field, value in zip(record.fields, row, strict=True)}
    return dict(row)


def _with_base64(value: Any, *, is_nested: bool = False) -> Any:
    """A column with nested bytes as base64, because MLflow decodes base64 only at the top of a column."""
    if isinstance(value, bytes) and is_nested:
        return base64.b64encode(value)
    if isinstance(value, list):
        return [_with_base64(item, is_nested=True) for item in value]
    if isinstance(value, dict):
        return {key: _with_base64(item, is_nested=True) for key, item in value.items()}
    return value


def _present(fields: dict[str, Any], record: MessageShape) -> dict[str, Any]:
    """The fields with a value in the example."""
    return {
        name: value for name, value in fields.items() if value is not None or is_nullable_json(record.by_any_name[name])
    }


def _check(fields: dict[str, Any], params: dict[str, Any] | None, contract: Contract) -> None:
    """Checks that a record can be sent."""
    rpc = contract.rpc(RpcKind.ONE)
    message = rpc.request_class()
    writer.fill(message, rpc.request, fields)
    if params and contract.params is not None:
        writer.put(message, contract.params, params, "params")
    names = {rpc.request.by_any_name[name].name for name in fields}
    if not names or any(field.needs_value and field.name not in names for field in rpc.request.fields):
        raise ValueError("the example lacks fields that the model needs")


def _payload(fields: dict[str, Any], params: dict[str, Any] | None, record: MessageShape, *, has_rows: bool) -> str:
    sole = record.sole_unnamed_field
    value: Any = fields if sole is None else fields[sole.name]
    if params:
        rows = [value] if has_rows else value
        value = {"inputs" if sole is not None or not has_rows else "dataframe_records": rows, "params": params}
    elif sole is not None and isinstance(value, list) and has_rows:
        value = [value]  # A bare list would be rows.
    text = typed_json.dumps(value)
    return text if text.isprintable() else text.encode("ascii", "backslashreplace").decode()


def _source(value: Any) -> str:
    """The Python source of a JSON value or bytes, also for floats that have no literal."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, list):
        return f"[{', '.join(map(_source, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {_source(item)}' for name, item in value.items())}}}"
    return repr(value)
