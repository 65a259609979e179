"""Contracts out of JSON Schemas, as pydantic 1, pydantic 2 and schema write them, and JSON Schemas out of contracts."""

import json
import math
from typing import Any

from mlflow_grpc.contract.types import (
    AnyValue,
    Enumeration,
    Field,
    Kind,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
    Union,
)

_KINDS = {
    "boolean": Scalar(Kind.BOOLEAN),
    "integer": Scalar(Kind.LONG),
    "number": Scalar(Kind.DOUBLE),
    "string": Scalar(Kind.STRING),
}
_FORMATS = {"date-time": Scalar(Kind.DATETIME), "binary": Scalar(Kind.BINARY), "base64": Scalar(Kind.BINARY)}


def record_of(schema: dict[str, Any], name: str) -> Record:
    """The record that a JSON Schema describes; what is no record is the only field of one, without a name.

    What cannot be said in a type of its own, such as a tuple of several types, becomes any value.
    """
    found = _Reader(schema).type_of(schema, name)
    if isinstance(found, Record):
        return found
    if schema.get("properties") == {} and not schema.get("additionalProperties"):
        return Record(name)
    return Record(name, [Field("", found, nullable=_takes_null(schema))])


def input_of(schema: dict[str, Any]) -> Record | None:
    """The record that a JSON Schema describes; None if it is for something else than objects of known fields."""
    found = record_of(schema, "input")
    return found if all(each.name for each in found.fields) else None


_NAMED = ("properties", "$defs", "definitions", "patternProperties")
HAS_DEFAULT = "x-has-default"
"""The keyword of a property that has a default other than null, which JSON cannot say; without it and without
`default` it is null, or absent, if it is left out."""

_VALUES = ("default", "examples", "example")


def text_of(schema: dict[str, Any]) -> str:
    """A JSON Schema as text, without the defaults and examples that JSON has no word for: NaN and infinity.

    Raises:
        ValueError: Such a number stands in it elsewhere.

    """
    return json.dumps(_sayable(schema), allow_nan=False)


def _sayable(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_sayable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: each for key, each in schema.items() if key not in _VALUES or _is_json(each)}
    return {
        key: {name: _sayable(part) for name, part in each.items()}
        if key in _NAMED and isinstance(each, dict)
        else _sayable(each)
        for key, each in kept.items()
    }


def _is_json(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_json, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


class _Reader:
    """Reads one schema and its definitions."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        self._known: dict[str, Type] = {}

    def type_of(self, schema: Any, name: str) -> Type:
        """The type that a schema means; `name` is what it is called if it is a record without a title."""
        if not isinstance(schema, dict):
            return AnyValue()
        if "$ref" in schema:
            return self._referred(schema["$ref"])
        if len(schema.get("allOf", ())) == 1:  # pydantic 1 wraps a reference that has a description.
            return self.type_of(schema["allOf"][0], name)
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if alternatives:
            return self._union([each for each in alternatives if each != {"type": "null"}], name)
        if "enum" in schema or "const" in schema:
            return _enumeration(schema, name)
        return self._by_type(schema, name)

    def _by_type(self, schema: dict[str, Any], name: str) -> Type:
        kind = schema.get("type")
        if kind == "array":
            return self._list(schema, name)
        if kind == "object":
            if schema.get("properties"):
                return self._fill(Record(schema.get("title") or name), schema)
            values = schema.get("additionalProperties", True)
            return MapOf(self.type_of(values, name), nullable=_takes_null(values))
        if kind == "string" and "format" in schema:
            return _FORMATS.get(schema["format"], Scalar(Kind.STRING, schema["format"]))
        return _KINDS.get(kind, AnyValue()) if isinstance(kind, str) else AnyValue()

    def _referred(self, reference: str) -> Type:
        key = reference.rsplit("/", 1)[-1]
        if key not in self._known:
            definition = self._definitions.get(key, {})
            if definition.get("properties"):
                # Known before its fields are read: it may hold itself.
                self._known[key] = record = Record(key)
                self._fill(record, definition)
            else:
                self._known[key] = self.type_of(definition, key)
        return self._known[key]

    def _fill(self, record: Record, schema: dict[str, Any]) -> Record:
        required = schema.get("required", ())
        record.is_closed = schema.get("additionalProperties") is False
        record.description = schema.get("description", "")
        for name, each in schema["properties"].items():
            record.fields.append(
                Field(
                    name,
                    self.type_of(each, name),
                    required=name in required,
                    nullable=_takes_null(each),
                    description=each.get("description", "") if isinstance(each, dict) else "",
                    default=each.get("default") if isinstance(each, dict) else None,
                    has_unsayable_default=isinstance(each, dict) and each.get(HAS_DEFAULT) is True,
                )
            )
        return record

    def _list(self, schema: dict[str, Any], name: str) -> Type:
        items = schema.get("prefixItems") or schema.get("items", {})
        if not isinstance(items, list):
            return ListOf(self.type_of(items, name), nullable=_takes_null(items))
        # A tuple; pydantic 1 puts its types into items.
        kinds = list(dict.fromkeys(self.type_of(item, name) for item in items))
        return ListOf(kinds[0] if len(kinds) == 1 else AnyValue(), nullable=any(map(_takes_null, items)))

    def _union(self, schemas: list[Any], name: str) -> Type:
        types = list(dict.fromkeys(self.type_of(each, name) for each in schemas))
        if len(types) == 1:
            return types[0]
        if set(types) == {_KINDS["integer"], _KINDS["number"]}:
            return _KINDS["number"]
        return Union(tuple(types)) if AnyValue() not in types else AnyValue()


def _enumeration(schema: dict[str, Any], name: str) -> Type:
    values = schema.get("enum", [schema.get("const")])
    words = [value for value in values if value is not None]
    if words and all(isinstance(value, str) for value in words):
        return Enumeration(schema.get("title") or name, tuple(words))
    if words and all(type(value) is int for value in words):
        return _KINDS["integer"]
    return AnyValue()


def _takes_null(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    if any(map(_takes_null, schema.get("anyOf") or schema.get("oneOf") or ())):
        return True
    return schema.get("type") == "null" or None in schema.get("enum", ())


def schema_of(part: Record | Tensor) -> dict[str, Any]:
    """The JSON Schema of a record that does not hold itself, or of a tensor."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(part)}


_SCALARS: dict[Kind, dict[str, Any]] = {
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.INTEGER: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    Kind.LONG: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    Kind.FLOAT: {"type": "number"},
    Kind.DOUBLE: {"type": "number"},
    Kind.STRING: {"type": "string"},
    Kind.BINARY: {"type": "string", "contentEncoding": "base64"},
    # ISO 8601 without a zone, which MLflow refuses; JSON Schema's format date-time asks for one.
    Kind.DATETIME: {"type": "string", "examples": ["2020-02-29T12:00:00"]},
}


def _schema(kind: Type) -> dict[str, Any]:
    match kind:
        case Scalar():
            return {**_SCALARS[kind.kind], **({"format": kind.format} if kind.format else {})}
        case Enumeration():
            return {"type": "string", "enum": list(kind.values)}
        case ListOf():
            return {"type": "array", "items": _nullable(_schema(kind.items), kind.nullable or kind.nulls_beside)}
        case MapOf():
            values = _nullable(_schema(kind.values), kind.nullable or kind.nulls_beside)
            return {"type": "object", "additionalProperties": values}
        case Union():
            return {"anyOf": [_schema(each) for each in kind.alternatives]}
        case Tensor():
            return _of_tensor(kind)
        case Record():
            return _of_record(kind)
        case AnyValue():
            return {}


def _of_record(record: Record) -> dict[str, Any]:
    properties = {}
    for place, each in enumerate(record.fields):
        described = _nullable(_schema(each.type), each.nullable)
        if each.description:
            described["description"] = each.description
        if not each.required and each.default is not None:
            described["default"] = each.default
        elif each.has_default:
            described[HAS_DEFAULT] = True
        properties[each.name or str(place)] = described
    required = [each.name or str(place) for place, each in enumerate(record.fields) if each.required]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _nullable(schema: dict[str, Any], nullable: bool) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]} if nullable and schema else dict(schema)


def _of_tensor(tensor: Tensor) -> dict[str, Any]:
    kinds = {"b": "boolean", "i": "integer", "u": "integer", "f": "number"}
    schema: dict[str, Any] = {"type": kinds.get(_letter(tensor.dtype), "string")}
    for size in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _letter(dtype: str) -> str:
    return "s" if dtype.startswith("str") or dtype in ("object", "bytes") else dtype[0]
