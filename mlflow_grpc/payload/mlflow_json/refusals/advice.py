"""Valid payloads to copy, for callers who sent an invalid one.

Rule of this module: MLflow has accepted every payload that is shown.
"""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model
from mlflow.types import Schema, TensorSpec

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.mlflow_json import csv_tables
from mlflow_grpc.payload.mlflow_json.refusals import json_terms

MAX_ADVICE = 200
"""Maximum size of a payload that is shown, in characters."""

SEE_DESCRIBE = " `mlflow-grpc-predict --describe MODEL` prints a payload that the model takes."


class Advice:
    """Sentences with payloads that one model accepts."""

    def __init__(self, metadata: Model, loader_module: str | None, schema: Schema | None, *, csv_dates: bool) -> None:
        """Prepares payloads for a signature of columns or tensors.

        Args:
            metadata: The model's metadata.
            loader_module: The module that loads its flavor.
            schema: The model's input schema; None if it has none.
            csv_dates: True if points in time are parsed in CSV.

        """
        self._metadata = metadata
        self._loader_module = loader_module
        self._schema = None if internals.is_signature_from_type_hint(metadata) else schema
        self._csv_dates = csv_dates

    def csv(self) -> str:
        """Returns a sentence with a table in CSV; with a JSON payload if MLflow accepts no CSV for the model."""
        names = names_of(self._schema)
        if self._schema is None or not names or internals.hides_schema_details():
            return ""
        row = [json_terms.example(spec.type) for spec in self._schema.inputs]
        text = pd.DataFrame([row], columns=names, dtype=object).to_csv(index=False)
        try:
            self._enforce(csv_tables.read(text, self._schema, dates=self._csv_dates))
        except Exception:  # noqa: BLE001 - every exception is a refusal
            return self.json()
        return f" This CSV works: {json.dumps(text, ensure_ascii=False)}." if len(text) <= MAX_ADVICE else SEE_DESCRIBE

    def json(self) -> str:
        """Returns a sentence with a JSON payload, or with a command that prints one if it is long.

        Returns an empty text if MLflow refuses a row of examples.
        """
        if self._schema is None or internals.hides_schema_details():
            return ""
        payload = _of_tensors(self._schema) if self._schema.is_tensor_spec() else _of_columns(self._schema)
        text = json.dumps(payload, ensure_ascii=False)
        if payload is None or len(text) > MAX_ADVICE:
            return SEE_DESCRIBE
        return f" MLflow takes {text}." if self.accepts(payload) else ""

    def bare(self, payload: dict[str, Any]) -> str:
        """Returns sentences for a payload that is a record, or the columns of a table, without the key of a format."""
        has_columns = all(isinstance(value, list) for value in payload.values())
        if has_columns and self.accepts({"inputs": payload}):
            return "The payload is the columns of a table by themselves: put them under the key inputs."
        text = "The payload is a record by itself: put it into an array under the key dataframe_records."
        return f"{text}{self.json()}"

    def accepts(self, payload: dict[str, Any]) -> bool:
        """Returns True if MLflow accepts a JSON payload."""
        try:
            self._enforce(internals.parse_json(json.dumps(payload).encode(), self._metadata, self._schema).data)
        except Exception:  # noqa: BLE001 - every exception is a refusal
            return False
        return True

    def _enforce(self, data: Any) -> None:
        internals.enforce_schema(data, self._schema, self._loader_module)


def _of_columns(schema: Schema) -> dict[str, Any]:
    """Returns a payload of one row of examples."""
    row = [json_terms.example(spec.type) for spec in schema.inputs]
    if not schema.has_input_names():
        return {"dataframe_split": {"data": [row]}}
    names = [str(spec.name) for spec in schema.inputs]
    return {"dataframe_records": [dict(zip(names, row, strict=True))]}


def _of_tensors(schema: Schema) -> dict[str, Any] | None:
    """Returns a payload of arrays, in which free dimensions have the length 1; None if the arrays are large."""
    specs: list[Any] = list(schema.inputs)
    shapes = [[1 if size == -1 else size for size in spec.shape] for spec in specs]
    if sum(math.prod(shape) for shape in shapes) > MAX_ADVICE:
        return None
    arrays = [np.full(shape, _element(spec), object).tolist() for shape, spec in zip(shapes, specs, strict=True)]
    names = [spec.name for spec in specs]
    return {"inputs": arrays[0] if names == [None] else dict(zip(map(str, names), arrays, strict=True))}


def _element(spec: TensorSpec) -> Any:
    """Returns an element of a tensor as JSON."""
    examples = {"f": 1.5, "b": True, "M": "2020-02-29T12:00:00", "i": 3, "u": 3}
    return examples.get(spec.type.kind, "text")


def names_of(schema: Schema | None) -> list[str]:
    """Returns the names of columns; empty for a schema without names, or of tensors."""
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return []
    return [str(spec.name) for spec in schema.inputs]
