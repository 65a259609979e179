"""Records of a model's own types as Python source and as JSON, to be pasted.

Rule of this module: what it writes gives the same value wherever `datetime` is imported, and nothing else has to be;
a record that could not be sent is not written.
"""

import base64
import datetime as dt
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_grpc_client._cli import typed_json
from mlflow_grpc_client._typed import writer
from mlflow_grpc_client._typed.contract import Contract, Field, Form, Kind, Record, Type
from mlflow_grpc_client.errors import PredictError


@dataclass(frozen=True, slots=True)
class Example:
    """A typed call that can be pasted."""

    arguments: str
    """What stands between the parentheses of `predict`, in Python."""
    payload: str
    """The same for `mlflow-grpc-predict --typed`."""


def example_in(payload: str, contract: Contract) -> Example | None:
    """The first record of an example payload as a typed call; None if there is none that could be sent."""
    try:
        given, params = typed_json.given_in(payload, contract)
        record = contract.rpc("predict").request
        _, is_rows = typed_json.rows_of(typed_json.parsed(payload), contract)
        fields = _present(_first(given, record, is_rows=is_rows), record)
        if record.only_nameless is None:
            fields = {name: _with_texts(value) for name, value in fields.items()}
        _check(fields, params, contract)
    except (
        LookupError,
        TypeError,
        ValueError,
        PredictError,
    ):  # A payload need not be JSON, nor have the model's fields.
        return None
    sources = {name: _value(value, record.spellings[name]) for name, value in fields.items()}
    if any(not name.isidentifier() or keyword.iskeyword(name) or name == "params" for name in sources):
        arguments = [_dict(sources)]
    else:
        arguments = [f"{name}={text}" for name, text in sources.items()]
    if params and contract.params is not None:
        arguments.append(f"params={_value(params, contract.params)}")
    return Example(", ".join(arguments), _payload(fields, params, record, has_rows=typed_json.has_rows(contract)))


def _first(given: Any, record: Record, *, is_rows: bool) -> dict[str, Any]:
    """The first of what was given, by the names of its fields."""
    row = given[0] if is_rows else given
    only = record.only_nameless
    if only is not None and (is_rows or not isinstance(row, Mapping) or only.name not in row):
        return {only.name: row}
    if isinstance(row, list):
        return dict(zip(record.fields, row, strict=True))
    return dict(row)


def _with_texts(value: Any, *, is_within: bool = False) -> Any:
    """A column whose bytes within lists, objects and maps are those of the text, which MLflow takes for no base64."""
    if isinstance(value, bytes) and is_within:
        return base64.b64encode(value)
    if isinstance(value, list):
        return [_with_texts(item, is_within=True) for item in value]
    if isinstance(value, dict):
        return {key: _with_texts(item, is_within=True) for key, item in value.items()}
    return value


def _present(fields: dict[str, Any], record: Record) -> dict[str, Any]:
    """The fields without those of which the example has no value."""
    kept = {}
    for name, value in fields.items():
        each = record.spellings[name]
        if value is not None or (each.type.kind is Kind.JSON and each.form is Form.ONE):
            kept[name] = value
    return kept


def _check(fields: dict[str, Any], params: dict[str, Any] | None, contract: Contract) -> None:
    """Sees whether a record can be sent.

    Raises:
        TypeError: A value is of another type than its field.
        ValueError: A field cannot hold its value, or one that the model needs is not there.

    """
    rpc = contract.rpc("predict")
    message = rpc.request_class()
    writer.fill(message, rpc.request, fields)
    if params and contract.params is not None:
        writer.put(message, contract.params, params, "params")
    given = {rpc.request.spellings[name].name for name in fields}
    if not given or rpc.request.required - given:
        raise ValueError("the example lacks fields that the model needs")


def _payload(fields: dict[str, Any], params: dict[str, Any] | None, record: Record, *, has_rows: bool) -> str:
    only = record.only_nameless
    value: Any = fields if only is None else fields[only.name]
    if params:
        rows = [value] if has_rows else value
        value = {"inputs" if only is not None or not has_rows else "dataframe_records": rows, "params": params}
    elif only is not None and isinstance(value, list) and has_rows:
        value = [value]  # A list is rows.
    text = typed_json.written(value)
    return text if text.isprintable() else text.encode("ascii", "backslashreplace").decode()


def _dict(sources: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {text}" for name, text in sources.items()) + "}"


def _value(value: Any, each: Field) -> str:
    if each.form is Form.LIST and isinstance(value, list):
        return f"[{', '.join(_single(item, each.type) for item in value)}]"
    if each.form is Form.MAP and isinstance(value, dict):
        return _dict({key: _single(item, each.type) for key, item in value.items()})
    return _single(value, each.type)


def _single(value: Any, kind: Type) -> str:
    if kind.kind is Kind.MOMENT and isinstance(value, str):
        return _moment(value)
    if kind.kind is Kind.BOX and value is not None:
        return _value(value, kind.content)
    if kind.kind is Kind.RECORD and isinstance(value, dict):
        found = kind.message.spellings
        return _dict(
            {name: _value(each, found[name]) if name in found else _plain(each) for name, each in value.items()}
        )
    return _plain(value)


def _plain(value: Any) -> str:
    """A value of JSON, or bytes; of floats those too that have no literal."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, dict):
        return _dict({name: _plain(each) for name, each in value.items()})
    return repr(value)


def _moment(text: str) -> str:
    """A datetime, if it has all that the text has; else the text, which a field takes too."""
    whole = f"{text[:-1]}+00:00" if text.endswith("Z") else text
    try:
        made = dt.datetime.fromisoformat(whole)
    except ValueError:
        return repr(text)
    fraction = whole.partition(".")[2].partition("+")[0].partition("-")[0]
    return repr(made) if len(fraction.rstrip("0")) <= 6 else repr(text)  # noqa: PLR2004 - digits of a microsecond
