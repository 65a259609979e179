"""Bytes and points in time between JSON, which has only text for them, and Python, by what a JSON Schema says of them.

Rule of this module: JSON decides what a record is. Bytes become the text that the schema reads as them, and a value of
Python's takes the place of JSON's only where JSON says the same of it.
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
"""The keyword for how bytes stand in JSON: utf8, base64 or hex, by pydantic's names."""


_NUMBERS = ("number", "integer", "boolean", "null")


NAIVE = "x-naive"
"""The keyword for a point in time that must have no zone."""


class WithDefaults(GenerateJsonSchema):
    """Makes JSON Schemas with a keyword at properties whose default they do not say: made anew, or of no JSON form."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Of a field that may be left out."""
        made = super().default_schema(schema)
        return made if "default" in made else {**made, HAS_DEFAULT: True}


class InDetail(GenerateJsonSchema):
    """Makes JSON Schemas that say how bytes stand in JSON (`val_json_bytes`), and which moments have no zone."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._ways: list[str] = ["utf8"]

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Of a class, whose configuration holds for its own fields."""
        with self._of_class(schema.get("config", {})):
            return super().model_schema(schema)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Of a dataclass, which has a configuration too."""
        with self._of_class(schema.get("config", {})):
            return super().dataclass_schema(schema)

    @contextlib.contextmanager
    def _of_class(self, config: core_schema.CoreConfig) -> Iterator[None]:
        self._ways.append(config.get("val_json_bytes", "utf8"))
        yield
        self._ways.pop()

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Of a point in time, with the keyword."""
        naive = {NAIVE: True} if schema.get("tz_constraint") == "naive" else {}
        return {**super().datetime_schema(schema), **naive}

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Of bytes, with the keyword."""
        return {**super().bytes_schema(schema), BYTES_IN_JSON: self._ways[-1]}


class Place:
    """A place in the values that a JSON Schema is for, with all schemas that may hold there."""

    def __init__(self, schema: Any, definitions: dict[str, Any] | None = None) -> None:
        """Args:
        schema: A JSON Schema, or a list of such.
        definitions: Those that its references mean; its own if not given.
        """
        if definitions is None:
            definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        self._definitions = definitions
        self._schemas = list(self._flat(schema if isinstance(schema, list) else [schema], ()))
        self._parts: dict[str | int | None, Place] = {}
        self._places = max((len(items) for each in self._schemas if isinstance(items := _items(each), list)), default=0)
        leaves = [
            each for each in self._schemas if "type" in each or not {"$ref", "allOf", "anyOf", "oneOf"} & each.keys()
        ]
        self._is_of_numbers = bool(leaves) and all(each.get("type") in _NUMBERS for each in leaves)
        texts = [each for each in self._schemas if each.get("type") == "string"]
        formats = [each.get("format") for each in texts]
        self.is_base64 = "base64" in formats
        self.is_binary = "binary" in formats
        self.is_moment = "date-time" in formats
        self.is_naive = self.is_moment and all(NAIVE in each for each in texts if each.get("format") == "date-time")
        self.is_only_bytes = bool(formats) and set(formats) <= {"base64", "binary"}
        self.in_json = next((each[BYTES_IN_JSON] for each in texts if BYTES_IN_JSON in each), "utf8")

    def _flat(self, schemas: Any, within: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        for schema in schemas:
            if not isinstance(schema, dict):
                continue
            yield schema
            key = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
            if key and key not in within:
                yield from self._flat([self._definitions.get(key)], (*within, key))
            for several in ("allOf", "anyOf", "oneOf"):
                yield from self._flat(schema.get(several, ()), within)

    def are_numbers(self, plain: Any) -> bool:
        """Whether a JSON value is a number here, or a list of such: nothing that Python could say more of."""
        if isinstance(plain, list):
            return not self._places and self.part(0).are_numbers(None)
        return self._is_of_numbers

    def part(self, key: str | int) -> "Place":
        """The place of a field, or of an item by its number."""
        # Fields that no schema names are all alike, and so are items past those that a tuple names.
        if isinstance(key, int):
            known: str | int | None = min(key, self._places)
        else:
            known = key if any(key in schema.get("properties", ()) for schema in self._schemas) else None
        if known not in self._parts:
            found = [_item(each, key) if isinstance(key, int) else _field(each, key) for each in self._schemas]
            self._parts[known] = Place(found, self._definitions)
        return self._parts[known]


def _field(schema: dict[str, Any], name: str) -> Any:
    return schema.get("properties", {}).get(name, schema.get("additionalProperties"))


def _items(schema: dict[str, Any]) -> Any:
    return schema.get("prefixItems") or schema.get("items")


def _item(schema: dict[str, Any], place: int) -> Any:
    items = _items(schema)
    return (items[place] if place < len(items) else None) if isinstance(items, list) else items


def has_naive(schema: Any) -> bool:
    """Whether a JSON Schema in detail has points in time without a zone anywhere."""
    if isinstance(schema, dict) and NAIVE in schema:
        return True
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return any(map(has_naive, parts))


def without_zones(value: Any, place: Place) -> Any:
    """A record with its points in time, which are in UTC, as the schema takes them: without a zone where none may be.

    Args:
        value: Dictionaries and lists, with texts that end with Z.
        place: Where it stands, by a schema in detail.

    """
    if isinstance(value, dict):
        return {key: without_zones(each, place.part(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [without_zones(each, place.part(number)) for number, each in enumerate(value)]
    return value.removesuffix("Z") if isinstance(value, str) and place.is_naive and _is_moment(value) else value


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def holds_bytes(value: Any) -> bool:
    """Whether there are bytes anywhere in dictionaries and lists."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        return any(map(holds_bytes, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def encoded(value: Any, place: Place, *, in_json: bool) -> Any:
    """A record with what the schema reads as its bytes in place of these.

    Args:
        value: Dictionaries and lists with bytes in them.
        place: Where it stands.
        in_json: As texts; else as the bytes that the schema decodes, where it decodes any.

    Raises:
        UnicodeDecodeError: JSON has no text for them.

    """
    if isinstance(value, dict):
        return {key: encoded(each, place.part(key), in_json=in_json) for key, each in value.items()}
    if isinstance(value, list):
        return [encoded(each, place.part(number), in_json=in_json) for number, each in enumerate(value)]
    if not isinstance(value, bytes):
        return value
    if place.is_base64:
        value = base64.b64encode(value)
    if not in_json:
        return value
    if place.in_json == "base64":
        return base64.urlsafe_b64encode(value).decode()
    return value.hex() if place.in_json == "hex" else value.decode()


def in_full(plain: Any, value: Any, place: Place) -> Any:
    """What JSON says of an output, with the bytes that its texts stand for, and Python's values where they say more.

    Args:
        plain: The output as JSON values.
        value: The same as Python's.
        place: Where it stands.

    """
    if place.are_numbers(plain):
        return plain
    if isinstance(plain, dict):
        by_key = _by_key(plain, value)
        return {key: in_full(each, by_key.get(key, each), place.part(key)) for key, each in plain.items()}
    if isinstance(plain, list):
        values = value if isinstance(value, list | tuple) and len(value) == len(plain) else plain
        return [in_full(*pair, place.part(number)) for number, pair in enumerate(zip(plain, values, strict=True))]
    if isinstance(plain, str | bytes) and (isinstance(value, bytes) or place.is_only_bytes):
        return _bytes(plain, value, place)
    if place.is_moment and isinstance(value, datetime) and not isinstance(plain, str):
        return value
    return value if _is_said(plain, value) else plain


def _by_key(plain: dict[str, Any], value: Any) -> dict[Any, Any]:
    """Python's dictionary by the keys that JSON has for it."""
    if not isinstance(value, dict) or len(value) != len(plain):
        return {}
    pairs = zip(plain, value.items(), strict=True)
    return {key if isinstance(key, str) else in_json: each for in_json, (key, each) in pairs}


def _bytes(plain: str | bytes, value: Any, place: Place) -> Any:
    if place.is_base64:
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(plain)
    if place.is_binary:
        return value if isinstance(value, bytes) or isinstance(plain, bytes) else plain.encode()
    return plain


def _is_said(plain: Any, value: Any) -> bool:
    """Whether JSON's value is just what JSON has for Python's."""
    if isinstance(value, bytes | dict | list | tuple | set | frozenset | np.ndarray) or type(plain) is type(value):
        return False
    try:
        usual = pydantic_core.to_jsonable_python(value, fallback=_of_numpy)
    except (pydantic_core.PydanticSerializationError, ValueError):
        return False
    if isinstance(value, datetime) and isinstance(plain, str):
        with contextlib.suppress(ValueError, TypeError):
            return datetime.fromisoformat(plain) == datetime.fromisoformat(usual)
    return bool(plain == usual)


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
