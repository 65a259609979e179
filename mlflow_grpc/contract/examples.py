"""Example values for JSON Schemas, for people to start from.

Rule of this module: it reads a schema and tries nothing. What it makes may still not fit, such as a text that has
to have a pattern and a length.
"""

import math
from typing import Any

from mlflow_grpc.contract.patterns import text_for

_WORDS = {
    "date-time": "2020-02-29T12:00:00Z",
    "date": "2020-02-29",
    "time": "12:00:00",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}


def example_of(schema: dict[str, Any]) -> Any:
    """A value that a JSON Schema describes; None where there is none to be had."""
    return _Examples(schema).of(schema, ())


class _Examples:
    """Makes examples for one schema and its definitions."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}

    def of(self, schema: Any, within: tuple[str, ...]) -> Any:
        """An example for a part of the schema that stands within these definitions."""
        if not isinstance(schema, dict):
            return None
        if reference := schema.get("$ref"):
            key = reference.rsplit("/", 1)[-1]
            return self.of(self._definitions.get(key, {}), (*within, key)) if key not in within else None
        given = [schema.get("const"), schema.get("default"), *schema.get("examples", ()), *schema.get("enum", ())]
        if found := [value for value in given if value is not None]:
            return found[0]
        for key in ("allOf", "anyOf", "oneOf"):
            if schema.get(key):
                return self.of(schema[key][0], within)
        return self._by_type(schema, within)

    def _by_type(self, schema: dict[str, Any], within: tuple[str, ...]) -> Any:
        match schema.get("type"):
            case "object":
                fields, needed = schema.get("properties", {}), schema.get("required", ())
                if schema is self._schema and not needed:  # A record without a field would show nothing.
                    found = ((name, self.of(each, within)) for name, each in fields.items())
                    return {name: value for name, value in found if value is not None}
                return {name: self.of(each, within) for name, each in fields.items() if name in needed}
            case "array":
                items = schema.get("prefixItems") or schema.get("items", {})
                if not isinstance(items, list):
                    items = [items] * max(1, schema.get("minItems", 1))
                made = [self.of(item, within) for item in items]
                return made if None not in made else []
            case "boolean":
                return True
            case "integer":
                return math.floor(_number(schema))
            case "number":
                return _number(schema)
            case "string":
                return _text(schema)
            case _:
                return None


def _text(schema: dict[str, Any]) -> str:
    """A text of the format or pattern, or of the length."""
    if isinstance(pattern := schema.get("pattern"), str) and (found := text_for(pattern)) is not None:
        return found
    least = schema.get("minLength", 0)
    return _WORDS.get(schema.get("format", ""), "text"[: max(least, schema.get("maxLength", 4))].ljust(least, "x"))


def _number(schema: dict[str, Any]) -> float:
    """1, or a number that is within the bounds."""
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if low < 1 < high:
        return 1.0
    if math.isfinite(low) and math.isfinite(high):
        return float((low + high) / 2)
    return float(low + 1 if math.isfinite(low) else high - 1)
