"""Conversion of JSON Schemas by pydantic 1, pydantic 2 and schema to contracts, and of contracts to JSON Schemas."""

import json
import math

from mlflow_grpc.contract.types import (
    AnyValue,
    DataType,
    Enumeration,
    Field,
    JsonSchema,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
    Union,
)

HAS_DEFAULT = "x-has-default"
"""Keyword of a property with a default that JSON cannot express. A property with neither this keyword nor `default` is
null, or absent, if it is left out."""

_TYPES = {
    "boolean": Scalar(DataType.BOOLEAN),
    "integer": Scalar(DataType.LONG),
    "number": Scalar(DataType.DOUBLE),
    "string": Scalar(DataType.STRING),
}
_FORMATS = {
    "date-time": Scalar(DataType.DATETIME),
    "binary": Scalar(DataType.BINARY),
    "base64": Scalar(DataType.BINARY),
}
_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions", "patternProperties")
"""Keywords whose values are schemas by names."""
_VALUES = ("default", "examples", "example")
"""Keywords whose values are not schemas."""


def record_of(schema: JsonSchema, name: str) -> Record:
    """Makes the record that a JSON Schema describes. Any other type becomes the only field of a record, without a name.

    A type that a contract does not have, such as a tuple of several types, becomes any value.
    """
    type_ = _Reader(schema).type_of(schema, name)
    if isinstance(type_, Record):
        return type_
    if schema.get("properties") == {} and not schema.get("additionalProperties"):
        return Record(name)
    return Record(name, [Field("", type_, nullable=_takes_null(schema))])


def input_of(schema: JsonSchema) -> Record | None:
    """Makes the record that a JSON Schema describes; None for a schema of anything but objects with known fields."""
    record = record_of(schema, "input")
    return record if all(field.name for field in record.fields) else None


def text_of(schema: JsonSchema) -> str:
    """Writes a JSON Schema as text, without defaults and examples that JSON cannot express: NaN and infinity.

    Raises:
        ValueError: The schema has such a number elsewhere.

    """
    return json.dumps(_without_nan(schema), allow_nan=False)


def _without_nan(schema: object) -> object:
    if isinstance(schema, list):
        return [_without_nan(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    content = {key: value for key, value in schema.items() if key not in _VALUES or _is_finite(value)}
    return {
        key: {name: _without_nan(nested) for name, nested in value.items()}
        if key in _SCHEMAS_BY_NAME and isinstance(value, dict)
        else _without_nan(value)
        for key, value in content.items()
    }


def _is_finite(value: object) -> bool:
    """Returns True if a value contains neither NaN nor infinity."""
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


class _Reader:
    """A reader of a schema and its definitions."""

    def __init__(self, schema: JsonSchema) -> None:
        self._definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        self._types: dict[str, Type] = {}

    def type_of(self, schema: object, name: str) -> Type:
        """Makes the type that a schema describes. The name is that of a record without a title."""
        if not isinstance(schema, dict):
            return AnyValue()
        if "$ref" in schema:
            return self._referenced(schema["$ref"])
        if len(schema.get("allOf", ())) == 1:  # pydantic 1 wraps a reference that has a description.
            return self.type_of(schema["allOf"][0], name)
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if alternatives:
            return self._union([schema for schema in alternatives if schema != {"type": "null"}], name)
        if "enum" in schema or "const" in schema:
            return _enumeration(schema, name)
        return self._by_type(schema, name)

    def _by_type(self, schema: JsonSchema, name: str) -> Type:
        type_name = schema.get("type")
        if type_name == "array":
            return self._list(schema, name)
        if type_name == "object":
            if schema.get("properties"):
                return self._fill(Record(schema.get("title") or name), schema)
            values = schema.get("additionalProperties", True)
            return MapOf(self.type_of(values, name), nullable=_takes_null(values))
        if type_name == "string" and "format" in schema:
            return _FORMATS.get(schema["format"], Scalar(DataType.STRING, schema["format"]))
        return _TYPES.get(type_name, AnyValue()) if isinstance(type_name, str) else AnyValue()

    def _referenced(self, reference: str) -> Type:
        key = reference.rsplit("/", 1)[-1]
        if key not in self._types:
            definition = self._definitions.get(key, {})
            if definition.get("properties"):
                # The record is there before its fields are read, because it may contain itself.
                self._types[key] = record = Record(key)
                self._fill(record, definition)
            else:
                self._types[key] = self.type_of(definition, key)
        return self._types[key]

    def _fill(self, record: Record, schema: JsonSchema) -> Record:
        required = schema.get("required", ())
        record.is_closed = schema.get("additionalProperties") is False
        record.description = schema.get("description", "")
        for name, field in schema["properties"].items():
            keywords = field if isinstance(field, dict) else {}
            record.fields.append(
                Field(
                    name,
                    self.type_of(field, name),
                    required=name in required,
                    nullable=_takes_null(field),
                    description=keywords.get("description", ""),
                    default=keywords.get("default"),
                    has_default_outside_json=keywords.get(HAS_DEFAULT) is True,
                )
            )
        return record

    def _list(self, schema: JsonSchema, name: str) -> Type:
        items = schema.get("prefixItems") or schema.get("items", {})
        if not isinstance(items, list):
            return ListOf(self.type_of(items, name), nullable=_takes_null(items))
        # A list of schemas is a tuple; pydantic 1 has it in `items`.
        types = list(dict.fromkeys(self.type_of(item, name) for item in items))
        return ListOf(types[0] if len(types) == 1 else AnyValue(), nullable=any(map(_takes_null, items)))

    def _union(self, schemas: list[object], name: str) -> Type:
        types = list(dict.fromkeys(self.type_of(schema, name) for schema in schemas))
        if len(types) == 1:
            return types[0]
        if set(types) == {_TYPES["integer"], _TYPES["number"]}:
            return _TYPES["number"]
        return Union(tuple(types)) if AnyValue() not in types else AnyValue()


def _enumeration(schema: JsonSchema, name: str) -> Type:
    values = [value for value in schema.get("enum", [schema.get("const")]) if value is not None]
    if values and all(isinstance(value, str) for value in values):
        return Enumeration(schema.get("title") or name, tuple(values))
    if values and all(type(value) is int for value in values):
        return _TYPES["integer"]
    return AnyValue()


def _takes_null(schema: object) -> bool:
    if not isinstance(schema, dict):
        return False
    if any(map(_takes_null, schema.get("anyOf") or schema.get("oneOf") or ())):
        return True
    return schema.get("type") == "null" or None in schema.get("enum", ())


def schema_of(root: Record | Tensor) -> JsonSchema:
    """Makes the JSON Schema of a tensor, or of a record that does not contain itself."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(root)}


_SCALARS: dict[DataType, JsonSchema] = {
    DataType.BOOLEAN: {"type": "boolean"},
    DataType.INTEGER: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    DataType.LONG: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    DataType.FLOAT: {"type": "number"},
    DataType.DOUBLE: {"type": "number"},
    DataType.STRING: {"type": "string"},
    DataType.BINARY: {"type": "string", "contentEncoding": "base64"},
    # MLflow refuses a time zone, and JSON Schema's format date-time requires one.
    DataType.DATETIME: {"type": "string", "examples": ["2020-02-29T12:00:00"]},
}


def _schema(type_: Type) -> JsonSchema:
    match type_:
        case Scalar():
            return {**_SCALARS[type_.data_type], **({"format": type_.format} if type_.format else {})}
        case Enumeration():
            return {"type": "string", "enum": list(type_.values)}
        case ListOf():
            return {"type": "array", "items": _nullable(_schema(type_.items), _may_have_nulls(type_))}
        case MapOf():
            values = _nullable(_schema(type_.values), _may_have_nulls(type_))
            return {"type": "object", "additionalProperties": values}
        case Union():
            return {"anyOf": [_schema(alternative) for alternative in type_.alternatives]}
        case Tensor():
            return _tensor_schema(type_)
        case Record():
            return _record_schema(type_)
        case AnyValue():
            return {}


def _may_have_nulls(type_: ListOf | MapOf) -> bool:
    return type_.nullable or type_.undeclared_nulls


def _record_schema(record: Record) -> JsonSchema:
    properties = {}
    for index, field in enumerate(record.fields):
        schema = _nullable(_schema(field.type), field.nullable)
        if field.description:
            schema["description"] = field.description
        if not field.required and field.default is not None:
            schema["default"] = field.default
        elif field.has_default:
            schema[HAS_DEFAULT] = True
        properties[field.name or str(index)] = schema
    required = [field.name or str(index) for index, field in enumerate(record.fields) if field.required]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _nullable(schema: JsonSchema, nullable: bool) -> JsonSchema:
    return {"anyOf": [schema, {"type": "null"}]} if nullable and schema else dict(schema)


def _tensor_schema(tensor: Tensor) -> JsonSchema:
    types = {"b": "boolean", "i": "integer", "u": "integer", "f": "number"}
    schema: JsonSchema = {"type": types.get(_dtype_letter(tensor.dtype), "string")}
    for size in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _dtype_letter(dtype: str) -> str:
    return "s" if dtype.startswith("str") or dtype in ("object", "bytes") else dtype[0]
