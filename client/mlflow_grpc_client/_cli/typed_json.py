"""Typed calls in JSON, as the command line makes them: texts into records, and answers into texts.

Rule of this module: JSON has texts where fields have bytes (base64) and points in time (ISO 8601, which
`typed_writer` reads itself), and NaN where a table has no value. All other values stay as they are.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from mlflow_grpc_client._payloads import jsonable
from mlflow_grpc_client._typed.contract import Contract, Field, Form, Kind, Record, Type
from mlflow_grpc_client._typed.payload_rows import Keywords, params_in, rows_in

_FLOATS = frozenset({Kind.FLOAT, Kind.DOUBLE, Kind.JSON, Kind.UNION, Kind.TENSOR})


def given_in(text: str, contract: Contract) -> tuple[Any, dict[str, Any] | None]:
    """The record or the rows in a JSON text, and the params beside them.

    Args:
        text: A record, a list of records, or a payload in one of MLflow's formats.
        contract: Of the model.

    Raises:
        ValueError: It is not JSON, or a text is no base64 where the model takes bytes.

    """
    record = contract.row
    payload = parsed(text)
    names = record.spellings.keys()
    rows, is_rows = rows_of(payload, contract)
    params = params_in(payload, names)
    if is_rows:
        return [_row(row, record, f"[{place}]") for place, row in enumerate(rows)], params
    return _one(rows, record), params


def rows_of(payload: Any, contract: Contract) -> tuple[Any, bool]:
    """The record or the rows in a payload, and whether it is rows; see `rows_in` for the error.

    Where no tensor has a size for rows, there is but the one record.
    """
    if not has_rows(contract):
        match payload:
            case {"inputs": found, **others} | {"instances": found, **others} if not others.keys() - {"params"}:
                return found, False
            case list():
                return payload, False
    return rows_in(payload, contract.row.spellings.keys())


def has_rows(contract: Contract) -> bool:
    """Whether a model takes rows: of one with tensors, whether these have a size for them."""
    are_tensors = all(each.type.kind is Kind.TENSOR for each in contract.row.fields.values())
    return "predict_batch" in contract.rpcs or not are_tensors


def record_in(text: str, contract: Contract) -> Any:
    """One record in a JSON text, for a stream; see `given_in` for the errors."""
    record = contract.rpc("predict_many").request
    payload = parsed(text)
    return _row(payload, record, "")


def written(answer: Any) -> str:
    """An answer as JSON, on one line."""
    return json.dumps(answer, ensure_ascii=False, default=jsonable)


def parsed(text: str) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: It is not JSON.

    """
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a typed call takes a record in JSON: {error}") from None


def _one(value: Any, record: Record) -> Any:
    """A record; where the only field has no name, a bare value is its value."""
    only = record.only_nameless
    if only is not None and not isinstance(value, Mapping):
        return Keywords({only.name: _value(value, only, only.name)})
    return _row(value, record, "")


def _row(row: Any, record: Record, where: str) -> Any:
    only = record.only_nameless
    if isinstance(row, Mapping) and not (only is not None and only.takes_dicts):
        return _fields(row, record, where)
    if only is not None:
        return _value(row, only, where or only.label)
    fields = list(record.fields.values())
    if isinstance(row, list) and len(row) == len(fields):
        return [_value(value, each, where) for value, each in zip(row, fields, strict=True)]
    return row


def _fields(values: Mapping[str, Any], record: Record, where: str) -> dict[str, Any]:
    made = {}
    for name, value in values.items():
        each = record.spellings.get(name)
        made[name] = value if each is None else _value(value, each, f"{where}.{name}" if where else name)
    return made


def _value(value: Any, each: Field, where: str) -> Any:
    if each.form is Form.LIST and isinstance(value, list):
        return [_single(item, each.type, f"{where}[{place}]") for place, item in enumerate(value)]
    if each.form is Form.MAP and isinstance(value, dict):
        return {key: _single(item, each.type, f"{where}.{key}") for key, item in value.items()}
    return _single(value, each.type, where)


def _single(value: Any, kind: Type, where: str) -> Any:
    if isinstance(value, float) and math.isnan(value) and kind.kind not in _FLOATS:
        return _value(value, kind.content, where) if kind.kind is Kind.BOX else None
    if kind.kind is Kind.MOMENT and value == "NaT":
        return None
    if kind.kind is Kind.BYTES and isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)  # MLflow writes it in lines.
        except binascii.Error:
            raise ValueError(f"{where}: the model takes bytes, which are base64 in JSON; this is none") from None
    if kind.kind is Kind.RECORD and isinstance(value, dict):
        return _fields(value, kind.message, where)
    if kind.kind is Kind.BOX:
        return _value(value, kind.content, where)
    if kind.kind is Kind.TENSOR:
        return _elements(value, kind.message.fields["data"].type, where)
    return value


def _elements(value: Any, kind: Type, where: str) -> Any:
    """The elements of a tensor; MLflow takes a null among floats for NaN, and writes it so."""
    if isinstance(value, list):
        return [_elements(item, kind, where) for item in value]
    return math.nan if value is None and kind.kind in _FLOATS else _single(value, kind, where)
