"""An MLModel class as an MLflow model: MLflow copies this file into the model ("models from code").

Rule of this module: it imports nothing of mlflow_grpc and nothing that an MLflow server has not got, since it is run
wherever the model is served. The class and its arguments come in as MLflow's `model_config`.
"""

import importlib
import json
import math
from datetime import date
from typing import Any

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

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """The outputs for the rows of a frame."""
        rows: Any = model_input.to_dict("records") if isinstance(model_input, pd.DataFrame) else model_input
        return [_plain(self._model.predict(data=self._parsed(row))) for row in rows]

    def _parsed(self, row: dict[str, Any]) -> Any:
        record = {name: value for name, value in row.items() if not _is_missing(value)}
        schema: Any = self._model.input_schema
        if hasattr(schema, "validate") and not isinstance(schema, type):
            # Of the package schema: `predict` checks it itself.
            return json.loads(json.dumps(record, default=_jsonable))
        if not hasattr(schema, "model_validate_json"):  # Of pydantic 1.
            return schema.parse_obj(record)
        if any(isinstance(value, bytes) for value in record.values()):
            return schema.model_validate(record)
        # JSON mode, in which texts stand for dates and enums also where a schema is strict.
        return schema.model_validate_json(json.dumps(record, default=_jsonable))


def _is_missing(value: Any) -> bool:
    """Whether a cell is what a frame has where a record has no such field."""
    return value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _jsonable(value: Any) -> Any:
    if isinstance(value, date):  # And so are datetime and pandas.Timestamp.
        return value.isoformat()
    return value.tolist()  # Of numpy.


def _plain(output: Any) -> Any:
    if hasattr(output, "model_dump"):
        return output.model_dump(mode="json", by_alias=True)
    if hasattr(output, "parse_obj"):
        return json.loads(output.json(by_alias=True))
    return output


set_model(MLModelAsPyfunc())
