"""JSON payloads of records that came as messages, in the formats that MLflow parses.

Rule of this module: a record becomes the payload that a caller would send for it as JSON, so both get the same answer.
"""

import base64
import json
from typing import Any

import numpy as np
from mlflow.models import Model

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.codec import ABSENT, Records
from mlflow_grpc.payload.mlflow_json.nested_bytes import NestedBytes


class RecordPayloads:
    """Writer of the records of one model as JSON payloads."""

    def __init__(self, metadata: Model) -> None:
        """Chooses the format by the signature.

        Args:
            metadata: The model's metadata.

        """
        schema = metadata.get_input_schema()
        self.labels = _labels(metadata)
        """Label of each column by its name in messages; empty if a column has no name."""
        self._is_hinted = internals.is_signature_from_type_hint(metadata)
        self._is_tensor = schema is not None and schema.is_tensor_spec()
        self._has_names = schema is not None and schema.has_input_names()
        self._bytes = NestedBytes(None if self._is_hinted else schema)

    def of_record(self, record: Any, params: dict[str, Any] | None) -> str:
        """Returns the payload of one record.

        Args:
            record: A dictionary of its fields, or the array that is the whole input.
            params: The params that are set; None if the model has none.

        Raises:
            InvalidPayload: MLflow has no JSON for bytes in the record.

        """
        if not isinstance(record, dict) or self._is_tensor:
            return self._json({"inputs": record}, params)
        record = self._bytes.as_texts(record)
        payload: dict[str, Any]
        if self.labels and not all(isinstance(label, str) for label in self.labels.values()):
            columns = [self.labels[name] for name in record]
            payload = {"dataframe_split": {"columns": columns, "data": [list(record.values())]}}
        elif self.labels:
            payload = {"dataframe_records": [record]}
        else:
            values = list(record.values())
            payload = {"inputs": values or [None]} if self._is_hinted else {"dataframe_split": {"data": [values]}}
        return self._json(payload, params)

    def of_records(self, records: Records, params: dict[str, Any] | None) -> str:
        """Returns the payload of several records.

        Args:
            records: The records.
            params: The params that are set; None if the model has none.

        Raises:
            InvalidPayload: MLflow has no JSON for bytes in a record.

        """
        columns = records.columns
        if self._is_tensor:
            return self._json({"inputs": columns if self._has_names else next(iter(columns.values()))}, params)
        columns = self._bytes.rows_as_texts(columns)
        payload: dict[str, Any]
        if self.labels:
            rows = list(zip(*columns.values(), strict=True))
            payload = {"dataframe_split": {"columns": [self.labels[name] for name in columns], "data": rows}}
        elif self._is_hinted:
            payload = {"inputs": next(iter(columns.values()))}
        else:
            payload = {"dataframe_split": {"data": list(zip(*columns.values(), strict=True))}}
        return self._json(payload, params)

    def _json(self, payload: dict[str, Any], params: dict[str, Any] | None) -> str:
        default = _element_default if self._is_tensor else _column_default
        return json.dumps({**payload, "params": params} if params else payload, default=default)


def _labels(metadata: Model) -> dict[str, Any]:
    """Returns the label of each column by its text, because a frame may have integers for labels.

    Returns an empty dictionary if a column has no name.
    """
    schema = metadata.get_input_schema()
    if schema is None or any(spec.name is None or spec.name == "" for spec in schema):
        return {}
    return {str(spec.name): spec.name for spec in schema}


def _column_default(value: Any) -> Any:
    """Returns the JSON value of an absent value, an array or bytes in a column."""
    if value is ABSENT:
        return None
    return value.tolist() if isinstance(value, np.ndarray) else base64.b64encode(value).decode()


def _element_default(value: Any) -> Any:
    """Returns the JSON value of an array or bytes in a tensor.

    MLflow accepts the elements of a tensor of bytes as texts, and refuses those that are not ASCII.
    """
    return value.tolist() if isinstance(value, np.ndarray) else value.decode("latin-1")
