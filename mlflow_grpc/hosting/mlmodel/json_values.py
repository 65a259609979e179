"""Conversion of bytes and timestamps between JSON and Python, guided by a JSON Schema.

Rule of this module: JSON decides what a record is. JSON has only strings for bytes and timestamps, so bytes become the
string that the schema reads as these bytes. A Python value replaces a JSON value only if both have the same meaning.
"""

import base64
import binascii
import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pydantic_core
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from mlflow_grpc.contract.json_schema import HAS_DEFAULT

BYTES_IN_JSON = "x-bytes-in-json"
"""Keyword for the JSON encoding of bytes: utf8, base64 or hex, as pydantic names them."""

NAIVE = "x-naive"
"""Keyword of a timestamp that must not have a timezone."""

_NUMBER_TYPES = ("number", "integer", "boolean", "null")

_COMBINATORS = ("allOf", "anyOf", "oneOf")


class SchemaWithDefaults(GenerateJsonSchema):
    """Generates JSON Schemas with a keyword at properties whose default is not in the schema.

    JSON Schema has no value for a default that a factory creates or that has no JSON form.
    """

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Returns the JSON Schema of a field that may be omitted."""
        json_schema = super().default_schema(schema)
        return json_schema if "default" in json_schema else {**json_schema, HAS_DEFAULT: True}


class DetailedSchema(GenerateJsonSchema):
    """Generates JSON Schemas with keywords for the encoding of bytes (`val_json_bytes`) and for naive timestamps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._encodings: list[str] = ["utf8"]

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Returns the JSON Schema of a class, whose configuration applies to its own fields."""
        with self._with_config(schema.get("config", {})):
            return super().model_schema(schema)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Returns the JSON Schema of a dataclass, whose configuration applies to its own fields."""
        with self._with_config(schema.get("config", {})):
            return super().dataclass_schema(schema)

    @contextlib.contextmanager
    def _with_config(self, config: core_schema.CoreConfig) -> Iterator[None]:
        self._encodings.append(config.get("val_json_bytes", "utf8"))
        yield
        self._encodings.pop()

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Returns the JSON Schema of a timestamp, with the keyword if it is naive."""
        naive = {NAIVE: True} if schema.get("tz_constraint") == "naive" else {}
        return {**super().datetime_schema(schema), **naive}

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Returns the JSON Schema of bytes, with the keyword for their encoding."""
        return {**super().bytes_schema(schema), BYTES_IN_JSON: self._encodings[-1]}


class SchemaNode:
    """A position in the values of a JSON Schema, with all schemas that may apply at this position."""

    def __init__(self, schema: Any, definitions: dict[str, Any] | None = None) -> None:
        """Collects the schemas that apply, with their references resolved.

        Args:
            schema: A JSON Schema or a list of them.
            definitions: The schemas that its references name. None for the definitions inside the schema.

        """
        if definitions is None:
            definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        self._definitions = definitions
        self._schemas = list(self._flat(schema if isinstance(schema, list) else [schema], ()))
        self._children: dict[str | int | None, SchemaNode] = {}
        self._tuple_length = max(
            (len(items) for items in map(_items, self._schemas) if isinstance(items, list)), default=0
        )
        leaves = [leaf for leaf in self._schemas if "type" in leaf or not {"$ref", *_COMBINATORS} & leaf.keys()]
        self._is_numeric = bool(leaves) and all(leaf.get("type") in _NUMBER_TYPES for leaf in leaves)
        strings = [leaf for leaf in self._schemas if leaf.get("type") == "string"]
        formats = [string.get("format") for string in strings]
        self.is_base64 = "base64" in formats
        self.is_binary = "binary" in formats
        self.is_timestamp = "date-time" in formats
        self.is_naive = self.is_timestamp and all(
            NAIVE in string for string in strings if string.get("format") == "date-time"
        )
        self.is_only_bytes = bool(formats) and set(formats) <= {"base64", "binary"}
        self.bytes_encoding = next((string[BYTES_IN_JSON] for string in strings if BYTES_IN_JSON in string), "utf8")

    def _flat(self, schemas: Any, within: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        for schema in schemas:
            if not isinstance(schema, dict):
                continue
            yield schema
            key = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
            if key and key not in within:
                yield from self._flat([self._definitions.get(key)], (*within, key))
            for combinator in _COMBINATORS:
                yield from self._flat(schema.get(combinator, ()), within)

    def is_numeric(self, json_value: Any) -> bool:
        """Returns True if a JSON value here is a number or a list of numbers, which needs no conversion."""
        if isinstance(json_value, list):
            return not self._tuple_length and self.child(0).is_numeric(None)
        return self._is_numeric

    def child(self, key: str | int) -> "SchemaNode":
        """Returns the node of a field, by its name, or of an item, by its index."""
        # All fields that no schema names share one node, and so do all items after those that a tuple names.
        if isinstance(key, int):
            cache_key: str | int | None = min(key, self._tuple_length)
        else:
            cache_key = key if any(key in schema.get("properties", ()) for schema in self._schemas) else None
        if cache_key not in self._children:
            schemas = [
                _item_schema(schema, key) if isinstance(key, int) else _field_schema(schema, key)
                for schema in self._schemas
            ]
            self._children[cache_key] = SchemaNode(schemas, self._definitions)
        return self._children[cache_key]


def _field_schema(schema: dict[str, Any], name: str) -> Any:
    return schema.get("properties", {}).get(name, schema.get("additionalProperties"))


def _items(schema: dict[str, Any]) -> Any:
    return schema.get("prefixItems") or schema.get("items")


def _item_schema(schema: dict[str, Any], index: int) -> Any:
    items = _items(schema)
    return (items[index] if index < len(items) else None) if isinstance(items, list) else items


def has_naive_timestamps(schema: Any) -> bool:
    """Returns True if a JSON Schema of DetailedSchema has a timestamp without a timezone at any depth."""
    if isinstance(schema, dict) and NAIVE in schema:
        return True
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return any(map(has_naive_timestamps, children))


def remove_forbidden_timezones(value: Any, node: SchemaNode) -> Any:
    """Returns a record with its UTC timestamps as the schema takes them: naive timestamps lose their Z.

    Args:
        value: Dictionaries and lists, whose timestamps are strings that end with Z.
        node: The schemas of the value, from DetailedSchema.

    """
    if isinstance(value, dict):
        return {key: remove_forbidden_timezones(item, node.child(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [remove_forbidden_timezones(item, node.child(index)) for index, item in enumerate(value)]
    return value.removesuffix("Z") if isinstance(value, str) and node.is_naive and _is_timestamp(value) else value


def _is_timestamp(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def contains_bytes(value: Any) -> bool:
    """Returns True if a value is bytes, or a collection that contains bytes at any depth."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        return any(map(contains_bytes, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def encode_bytes(value: Any, node: SchemaNode, *, as_text: bool) -> Any:
    """Returns a record with its bytes encoded in the way that the schema decodes.

    Args:
        value: Dictionaries and lists with bytes in them.
        node: The schemas of the value.
        as_text: True to encode all bytes as strings. False to encode only base64 fields, as bytes.

    Raises:
        UnicodeDecodeError: JSON has no string for some bytes.

    """
    if isinstance(value, dict):
        return {key: encode_bytes(item, node.child(key), as_text=as_text) for key, item in value.items()}
    if isinstance(value, list):
        return [encode_bytes(item, node.child(index), as_text=as_text) for index, item in enumerate(value)]
    if not isinstance(value, bytes):
        return value
    if node.is_base64:
        value = base64.b64encode(value)
    if not as_text:
        return value
    if node.bytes_encoding == "base64":
        return base64.urlsafe_b64encode(value).decode()
    return value.hex() if node.bytes_encoding == "hex" else value.decode()


def restore_python_values(json_value: Any, value: Any, node: SchemaNode) -> Any:
    """Returns an output in its JSON form, with bytes decoded and with Python values where these are more precise.

    Args:
        json_value: The output as JSON values.
        value: The output as Python values.
        node: The schemas of the output.

    """
    if node.is_numeric(json_value):
        return json_value
    if isinstance(json_value, dict):
        by_key = _by_json_key(json_value, value)
        return {
            key: restore_python_values(item, by_key.get(key, item), node.child(key)) for key, item in json_value.items()
        }
    if isinstance(json_value, list):
        values = value if isinstance(value, list | tuple) and len(value) == len(json_value) else json_value
        pairs = zip(json_value, values, strict=True)
        return [restore_python_values(*pair, node.child(index)) for index, pair in enumerate(pairs)]
    if isinstance(json_value, str | bytes) and (isinstance(value, bytes) or node.is_only_bytes):
        return _decoded_bytes(json_value, value, node)
    if node.is_timestamp and isinstance(value, datetime) and not isinstance(json_value, str):
        return value
    return value if _is_default_form(json_value, value) else json_value


def _by_json_key(json_value: dict[str, Any], value: Any) -> dict[Any, Any]:
    """Returns the values of a Python dictionary by their keys in JSON."""
    if not isinstance(value, dict) or len(value) != len(json_value):
        return {}
    pairs = zip(json_value, value.items(), strict=True)
    return {key if isinstance(key, str) else json_key: item for json_key, (key, item) in pairs}


def _decoded_bytes(json_value: str | bytes, value: Any, node: SchemaNode) -> Any:
    if node.is_base64:
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(json_value)
    if node.is_binary:
        return value if isinstance(value, bytes) or isinstance(json_value, bytes) else json_value.encode()
    return json_value


def _is_default_form(json_value: Any, value: Any) -> bool:
    """Returns True if a JSON value is what pydantic makes of a Python value by default."""
    if isinstance(value, bytes | dict | list | tuple | set | frozenset | np.ndarray) or type(json_value) is type(value):
        return False
    try:
        default_form = pydantic_core.to_jsonable_python(value, fallback=_numpy_scalar_to_python)
    except (pydantic_core.PydanticSerializationError, ValueError):
        return False
    if isinstance(value, datetime) and isinstance(json_value, str):
        with contextlib.suppress(ValueError, TypeError):
            return datetime.fromisoformat(json_value) == datetime.fromisoformat(default_form)
    return bool(json_value == default_form)


def _numpy_scalar_to_python(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
