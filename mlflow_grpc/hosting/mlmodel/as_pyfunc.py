"""An MLModel class as an MLflow model: MLflow copies this file into the model ("models from code").

Rule of this module: it imports nothing of mlflow_grpc and nothing that an MLflow server has not got, since it is run
wherever the model is served. The class and its arguments come in as MLflow's `model_config`.
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
    """Gives each row to the model as one record, and what it answers as a dictionary of JSON values."""

    def load_context(self, context: Any) -> None:
        """Makes an instance of the class."""
        config = context.model_config
        module, _, name = config["class_path"].rpartition(".")
        self._model = getattr(importlib.import_module(module), name)(**(config.get("configuration") or {}))
        self._schema: Any = self._model.input_schema
        self._place = _Place(_json_schema(self._schema))

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """The outputs for the rows of a frame."""
        rows: Any = model_input.to_dict("records") if isinstance(model_input, pd.DataFrame) else model_input
        return [_plain(self._model.predict(data=self._parsed(row, alone=len(rows) == 1))) for row in rows]

    def _parsed(self, row: dict[str, Any], *, alone: bool) -> Any:
        record, schema = self._record(row, alone=alone), self._schema
        if hasattr(schema, "json_schema"):
            return _python(record)  # Of the package schema: `predict` checks it itself.
        if not hasattr(schema, "model_validate_json"):  # Of pydantic 1.
            return schema.parse_obj(record)
        said = _encoded(_python(record), self._place)
        if _holds_bytes(said) and not schema.model_config.get("strict"):
            return schema.model_validate(said)
        # JSON mode, in which texts stand for dates and enums also where a schema is strict.
        return schema.model_validate_json(json.dumps(said, default=bytes.decode))

    def _record(self, row: dict[str, Any], *, alone: bool) -> dict[str, Any]:
        """A row without the cells that say no more than that a frame has one for each row and column.

        In a frame of several rows a cell without a value may be one that was left out, and is taken for that where it
        may be left out. In a frame of one row the cell was sent.
        """
        record = {}
        for name, value in row.items():
            if not _is_missing(value):
                record[name] = value
                continue
            place = self._place.part(name)
            required = name in self._place.required
            if not alone and not required:
                continue
            if place.takes_none or self._takes_none(name):
                record[name] = None
            elif place.takes_numbers:
                record[name] = math.nan
            elif required:
                record[name] = None  # The schema refuses it in its own words.
        return record

    def _takes_none(self, name: str) -> bool:
        """Whether a field of pydantic 1 does, whose JSON Schema does not tell."""
        fields = getattr(self._schema, "__fields__", {}) if not hasattr(self._schema, "model_fields") else {}
        return any(field.alias == name and field.allow_none for field in fields.values())


def _json_schema(schema: Any) -> dict[str, Any]:
    made: dict[str, Any]
    if hasattr(schema, "json_schema"):  # Of the package schema.
        made = schema.json_schema("input")
    else:
        made = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema.schema()
    return made


class _Place:
    """A place in a record, with all JSON Schemas that may hold there."""

    def __init__(self, *schemas: Any, definitions: dict[str, Any] | None = None) -> None:
        if definitions is None:
            definitions = {**schemas[0].get("definitions", {}), **schemas[0].get("$defs", {})}
        self._definitions = definitions
        self._schemas = list(self._flat(schemas, ()))
        kinds = {each.get("type") for each in self._schemas}
        leaves = [each for each in self._schemas if not {"$ref", "allOf", "anyOf", "oneOf"} & each.keys()]
        self.takes_none = "null" in kinds or any(
            not {"type", "enum", "const"} & each.keys() or each.get("const", 0) is None or None in each.get("enum", ())
            for each in leaves
        )
        self.takes_numbers = "number" in kinds
        self.is_base64 = any(each.get("format") == "base64" for each in self._schemas)
        self.required = {name for each in self._schemas for name in each.get("required", ())}

    def _flat(self, schemas: Any, within: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        for schema in schemas:
            if isinstance(schema, dict):
                yield schema
                key = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
                if key and key not in within:
                    yield from self._flat([self._definitions.get(key)], (*within, key))
                for several in ("allOf", "anyOf", "oneOf"):
                    yield from self._flat(schema.get(several, ()), within)

    def part(self, key: str | int) -> "_Place":
        """The place of a field, or of an item by its number."""
        found = []
        for schema in self._schemas:
            items = schema.get("prefixItems") or schema.get("items")
            if isinstance(key, str):
                found.append(schema.get("properties", {}).get(key, schema.get("additionalProperties")))
            elif not isinstance(items, list):
                found.append(items)
            elif key < len(items):
                found.append(items[key])
        return _Place(*found, definitions=self._definitions)


def _encoded(value: Any, place: _Place) -> Any:
    """A record in which bytes that the schema decodes from base64 are what it decodes: the frame has them decoded."""
    if not _holds_bytes(value):
        return value
    if isinstance(value, dict):
        return {name: _encoded(each, place.part(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_encoded(each, place.part(number)) for number, each in enumerate(value)]
    return base64.b64encode(value) if place.is_base64 else value


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_bytes, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def _is_missing(value: Any) -> bool:
    """Whether a cell is what a frame has where a record has no such field, or nothing in it."""
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _python(value: Any) -> Any:
    """A value of a frame's as JSON has it, but for bytes."""
    if isinstance(value, dict):
        return {name: _python(each) for name, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_python(each) for each in value]
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat() if isinstance(value, date) else value  # And so are datetime and pandas.Timestamp.


def _plain(output: Any) -> Any:
    if hasattr(output, "model_dump"):
        return output.model_dump(mode="json", by_alias=True)
    if hasattr(output, "parse_obj"):
        return json.loads(output.json(by_alias=True))
    return output


set_model(MLModelAsPyfunc())
