"""Example values for JSON Schemas, as a starting point for people.

Rule of this module: it reads a schema and tries nothing. An example may still be invalid, for instance if a string must
both match a pattern and have a certain length.
"""

import math

from mlflow_grpc.contract.patterns import matching_text
from mlflow_grpc.contract.types import Json, JsonSchema

_STRINGS = {
    "date-time": "2020-02-29T12:00:00Z",
    "date": "2020-02-29",
    "time": "12:00:00",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}


def example_of(schema: JsonSchema) -> Json:
    """Makes a value that fits a JSON Schema; None if the schema has too little information."""
    return _Examples(schema).example(schema, ())


class _Examples:
    """Examples for a schema and its definitions."""

    def __init__(self, schema: JsonSchema) -> None:
        self._schema = schema
        self._definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}

    def example(self, schema: object, outer: tuple[str, ...]) -> Json:
        """Makes an example for a schema that is nested in these definitions."""
        if not isinstance(schema, dict):
            return None
        if reference := schema.get("$ref"):
            key = reference.rsplit("/", 1)[-1]
            return self.example(self._definitions.get(key, {}), (*outer, key)) if key not in outer else None
        candidates = [schema.get("const"), schema.get("default"), *schema.get("examples", ()), *schema.get("enum", ())]
        for value in candidates:
            if value is not None:
                example: Json = value
                return example
        for key in ("allOf", "anyOf", "oneOf"):
            if schema.get(key):
                return self.example(schema[key][0], outer)
        return self._by_type(schema, outer)

    def _by_type(self, schema: JsonSchema, outer: tuple[str, ...]) -> Json:
        match schema.get("type"):
            case "object":
                return self._object(schema, outer)
            case "array":
                return self._array(schema, outer)
            case "boolean":
                return True
            case "integer":
                return math.floor(_number(schema))
            case "number":
                return _number(schema)
            case "string":
                return _string(schema)
            case _:
                return None

    def _object(self, schema: JsonSchema, outer: tuple[str, ...]) -> Json:
        """An object with the required fields, or with all fields of a schema that requires none."""
        fields, required = schema.get("properties", {}), schema.get("required", ())
        if schema is self._schema and not required:  # An empty record would show nothing.
            values = {name: self.example(field, outer) for name, field in fields.items()}
            return {name: value for name, value in values.items() if value is not None}
        return {name: self.example(field, outer) for name, field in fields.items() if name in required}

    def _array(self, schema: JsonSchema, outer: tuple[str, ...]) -> Json:
        items = schema.get("prefixItems") or schema.get("items", {})
        if not isinstance(items, list):
            items = [items] * max(1, schema.get("minItems", 1))
        values = [self.example(item, outer) for item in items]
        return values if None not in values else []


def _string(schema: JsonSchema) -> str:
    """A string that matches the pattern or format, or has a valid length."""
    if isinstance(pattern := schema.get("pattern"), str) and (text := matching_text(pattern)) is not None:
        return text
    shortest = schema.get("minLength", 0)
    default = "text"[: max(shortest, schema.get("maxLength", 4))].ljust(shortest, "x")
    return _STRINGS.get(schema.get("format", ""), default)


def _number(schema: JsonSchema) -> float:
    """1, or a number within the bounds."""
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if low < 1 < high:
        return 1.0
    if math.isfinite(low) and math.isfinite(high):
        return float((low + high) / 2)
    return float(low + 1 if math.isfinite(low) else high - 1)
