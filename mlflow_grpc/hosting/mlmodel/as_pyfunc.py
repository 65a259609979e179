"""An MLModel class as an MLflow model: MLflow copies this file into the model ("models from code").

Rule of this module: it imports only packages that every MLflow server has, and nothing from mlflow_grpc, because it
runs wherever the model is served. MLflow's `model_config` names the class and its arguments.
"""

import base64
import importlib
import json
import math
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class MLModelAsPyfunc(PythonModel):
    """Passes each row to the model as one record and returns the output as a dictionary of JSON values."""

    def load_context(self, context: Any) -> None:
        """Creates an instance of the class that `model_config` names."""
        config = context.model_config
        module, _, name = config["class_path"].rpartition(".")
        self._model = getattr(importlib.import_module(module), name)(**(config.get("configuration") or {}))
        self._schema: Any = self._model.input_schema
        self._root = _SchemaNode(_json_schema(self._schema))

    # The input may be a list of records if there is no signature. MLflow reads the type hint: it warns of Any and of
    # none, and neither checks nor converts an input with the hint of a frame.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Returns the outputs for the rows of a frame."""
        rows: Any = model_input.to_dict("records") if isinstance(model_input, pd.DataFrame) else model_input
        return [_to_json_values(self._model.predict(data=self._parse(row, is_only=len(rows) == 1))) for row in rows]

    def _parse(self, row: dict[str, Any], *, is_only: bool) -> Any:
        record, schema = self._record(row, is_only=is_only), self._schema
        if hasattr(schema, "json_schema"):
            return _to_python(record)  # A schema of the package schema: the model's `predict` validates.
        if not hasattr(schema, "model_validate_json"):  # A pydantic 1 class.
            return schema.parse_obj(record)
        payload = _encode_base64(_to_python(record), self._root)
        if _contains_bytes(payload) and not schema.model_config.get("strict"):
            return schema.model_validate(payload)
        # JSON mode, because strict schemas take strings for dates and enums only there.
        return schema.model_validate_json(json.dumps(payload, default=bytes.decode))

    def _record(self, row: dict[str, Any], *, is_only: bool) -> dict[str, Any]:
        """Returns a row without the empty cells that only exist because a frame has a cell for every row and column.

        In a frame of several rows, an empty cell may be a field that the caller omitted. It is dropped if the field is
        optional. In a frame of one row, the caller has sent every cell.
        """
        record = {}
        for name, value in row.items():
            if not _is_missing(value):
                record[name] = value
                continue
            field = self._root.child(name)
            required = name in self._root.required
            if not is_only and not required:
                continue
            if field.takes_none or self._takes_none(name):
                record[name] = None
            elif field.takes_numbers:
                record[name] = math.nan
            elif required:
                record[name] = None  # The schema refuses it with its own message.
        return record

    def _takes_none(self, name: str) -> bool:
        """Returns True if a field of a pydantic 1 class takes None, which is not in the class's JSON Schema."""
        fields = getattr(self._schema, "__fields__", {}) if not hasattr(self._schema, "model_fields") else {}
        return any(field.alias == name and field.allow_none for field in fields.values())


def _json_schema(schema: Any) -> dict[str, Any]:
    json_schema: dict[str, Any]
    if hasattr(schema, "json_schema"):  # A schema of the package schema.
        json_schema = schema.json_schema("input")
    else:
        json_schema = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema.schema()
    return json_schema


class _SchemaNode:
    """A position in a record, with all JSON Schemas that may apply at this position."""

    def __init__(self, *schemas: Any, definitions: dict[str, Any] | None = None) -> None:
        if definitions is None:
            definitions = {**schemas[0].get("definitions", {}), **schemas[0].get("$defs", {})}
        self._definitions = definitions
        self._schemas = list(self._flat(schemas, ()))
        types = {schema.get("type") for schema in self._schemas}
        leaves = [schema for schema in self._schemas if not {"$ref", "allOf", "anyOf", "oneOf"} & schema.keys()]
        self.takes_none = "null" in types or any(
            not {"type", "enum", "const"} & leaf.keys() or leaf.get("const", 0) is None or None in leaf.get("enum", ())
            for leaf in leaves
        )
        self.takes_numbers = "number" in types
        self.is_base64 = any(schema.get("format") == "base64" for schema in self._schemas)
        self.required = {name for schema in self._schemas for name in schema.get("required", ())}

    def _flat(self, schemas: Any, within: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        for schema in schemas:
            if isinstance(schema, dict):
                yield schema
                key = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
                if key and key not in within:
                    yield from self._flat([self._definitions.get(key)], (*within, key))
                for combinator in ("allOf", "anyOf", "oneOf"):
                    yield from self._flat(schema.get(combinator, ()), within)

    def child(self, key: str | int) -> "_SchemaNode":
        """Returns the node of a field, by its name, or of an item, by its index."""
        schemas = []
        for schema in self._schemas:
            items = schema.get("prefixItems") or schema.get("items")
            if isinstance(key, str):
                schemas.append(schema.get("properties", {}).get(key, schema.get("additionalProperties")))
            elif not isinstance(items, list):
                schemas.append(items)
            elif key < len(items):
                schemas.append(items[key])
        return _SchemaNode(*schemas, definitions=self._definitions)


def _encode_base64(value: Any, node: _SchemaNode) -> Any:
    """Encodes the bytes that the schema decodes from base64, because the frame has them decoded already."""
    if not _contains_bytes(value):
        return value
    if isinstance(value, dict):
        return {name: _encode_base64(item, node.child(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_encode_base64(item, node.child(index)) for index, item in enumerate(value)]
    return base64.b64encode(value) if node.is_base64 else value


def _contains_bytes(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_contains_bytes, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def _is_missing(value: Any) -> bool:
    """Returns True for None, NaN, NaT and NA, which a frame has where a record has no value."""
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _to_python(value: Any) -> Any:
    """Converts a value of a frame to JSON values; bytes stay bytes."""
    if isinstance(value, dict):
        return {name: _to_python(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_python(item) for item in value]
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat() if isinstance(value, date) else value  # A datetime and a pandas.Timestamp are dates too.


def _to_json_values(output: Any) -> Any:
    if hasattr(output, "model_dump"):
        return output.model_dump(mode="json", by_alias=True)
    if hasattr(output, "parse_obj"):
        return json.loads(output.json(by_alias=True))
    return output


set_model(MLModelAsPyfunc())
