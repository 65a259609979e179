"""JSON Schemas as lines of text, for people."""

import json
from collections.abc import Iterator
from typing import Any


def lines_of(schema: dict[str, Any]) -> Iterator[str]:
    """A line for each field of an object schema, or a line for any other schema; indented by two spaces."""
    for name, text in field_rows(schema):
        yield f"  {name}: {text}" if name else f"  {text}"


def field_rows(schema: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of the name and the description of each field; the name is empty for a schema without fields."""
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return [("", _type(schema, definitions))]
    required = schema.get("required", ())
    return [
        (name, _field(subschema, definitions, is_required=name in required)) for name, subschema in properties.items()
    ]


def _field(schema: dict[str, Any], definitions: dict[str, Any], *, is_required: bool) -> str:
    facts = [_type(schema, definitions)]
    if not is_required:
        default = schema.get("default")
        unknown = "has a default" if schema.get("x-has-default") is True else "optional"
        facts.append(unknown if default is None else f"default {json.dumps(default)}")
    line = ", ".join(facts)
    return f"{line}  {schema['description']}" if schema.get("description") else line


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        key = reference.rsplit("/", 1)[-1]
        definition = definitions.get(key, {})
        return _type(definition, {}) if "enum" in definition else key
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_type(alternative, definitions) for alternative in alternatives))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {_type(items, definitions)}" if isinstance(items, dict) else "list"
    return str(schema.get("format") or schema.get("type") or "any")
