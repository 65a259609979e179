"""A model in words: what it takes and gives, and a call to paste.

Rule of this module: it reads JSON Schemas for people. It leaves out what does not fit on a line.
"""

import json
import shlex
from collections.abc import Iterator
from typing import Any

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
        command = ["mlflow-grpc-predict", "-a", address, "-m", model.label, model.example]
        yield f"example: {shlex.join(command)}"


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
