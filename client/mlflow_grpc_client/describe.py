"""A model in words: what it takes and gives, and a call to paste.

Rule of this module: it reads JSON Schemas for people. It leaves out what does not fit on a line.
"""

import base64
import json
import keyword
import shlex
from collections.abc import Iterator
from typing import Any

from mlflow_grpc_client.contract import SERVICE
from mlflow_grpc_client.wire import Model


def describe(model: Model, address: str) -> Iterator[str]:
    """The lines about a model; the call goes to `address`."""
    yield (
        f"{model.label} ({', '.join(model.flavors)}): {model.state}"
        if model.flavors
        else f"{model.label}: {model.state}"
    )
    yield from (line for line in (model.display_name, model.description, model.error, model.uri) if line)
    for title, schema in (
        ("input", model.input_schema),
        ("params", model.params_schema),
        ("output", model.output_schema),
    ):
        if schema:
            yield f"{title}:"
            yield from _fields(schema)
    if model.rpcs:
        yield f"called by: {', '.join(model.rpcs)}"
    if model.example:
        command = ["mlflow-grpc-predict", "-a", address, "-m", model.label, _compact(model.example)]
        yield f"example: {shlex.join(command)}"
        typed = _typed_call(model)
        if typed:
            yield f"in Python: {typed}"


def _compact(example: str) -> str:
    """An example on one line, if it is JSON: what is not printable would not be pasted as it is."""
    try:
        payload = json.loads(example)
    except ValueError:
        return example
    compact = json.dumps(payload, ensure_ascii=False)
    return compact if compact.isprintable() else json.dumps(payload)


def _typed_call(model: Model) -> str:
    """The example as a call of the model in its own types; empty if it has none, or the example is no such record."""
    if not any(path.startswith(f"/{SERVICE}/") and path.endswith("_predict") for path in model.rpcs):
        return ""
    try:
        record = _record(json.loads(model.example), model.input_schema)
    except ValueError:  # A payload need not be JSON.
        record = None
    if record is None:
        return ""
    arguments = [f"{name}={value!r}" for name, value in record.items()]
    if any(not name.isidentifier() or keyword.iskeyword(name) or name == "params" for name in record):
        arguments = [repr(record)]
    return f"client.model({model.label!r}).predict({', '.join(arguments)})"


def _record(payload: Any, schema: dict[str, Any]) -> dict[str, Any] | None:
    """The first record of a payload; None if it has none."""
    fields: dict[str, Any] = schema.get("properties", {})
    record: Any
    match payload:
        case {"dataframe_split": {"columns": columns, "data": [[*values], *_]}}:
            record = dict(zip(columns, values, strict=True))
        case {"dataframe_split": {"data": [[value], *_]}} | {"inputs": [value, *_]} if len(fields) <= 1:
            record = {"value": value}
        case {"dataframe_split": {"data": [[*values], *_]}}:
            record = {f"column_{place}": value for place, value in enumerate(values)}
        case {"dataframe_records": [dict(found), *_]}:
            record = found
        case {"inputs": dict(found)} if fields:
            record = {name: values[0] for name, values in found.items() if isinstance(values, list) and values}
        case dict(found) if found.keys() <= fields.keys():
            record = found
        case _:
            return None
    return {name: _value(value, fields.get(name, {})) for name, value in record.items()}


def _value(value: Any, schema: dict[str, Any]) -> Any:
    """A value with bytes where JSON has a text for them."""
    if isinstance(value, str) and "base64" in (schema.get("contentEncoding"), schema.get("format")):
        return base64.b64decode(value)
    return value.encode() if isinstance(value, str) and schema.get("format") == "binary" else value


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        yield f"  {_type(schema, definitions)}"
        return
    required = schema.get("required", ())
    for name, each in properties.items():
        said = [_type(each, definitions)]
        if name not in required:
            default = each.get("default")
            said.append("optional" if default is None else f"default {json.dumps(default)}")
        line = f"  {name}: {', '.join(said)}"
        yield f"{line}  {each['description']}" if each.get("description") else line


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        key = reference.rsplit("/", 1)[-1]
        found = definitions.get(key, {})
        return _type(found, {}) if "enum" in found else key
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_type(each, definitions) for each in alternatives))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {_type(items, definitions)}" if isinstance(items, dict) else "list"
    return str(schema.get("format") or schema.get("type") or "any")
