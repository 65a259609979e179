"""Predictions as columns of the output.

Rule of this module: there is a prediction for each row, or the model does not score rows.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape, ScalarShape, TimestampShape
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._score import columns
from mlflow_grpc_client._score.errors import ScoreError

PREDICTION = "prediction"
"""Name of the column of predictions that have no name in the model."""

_SCALARS = {
    FieldDescriptor.TYPE_BOOL: pa.bool_(),
    FieldDescriptor.TYPE_FLOAT: pa.float32(),
    FieldDescriptor.TYPE_DOUBLE: pa.float64(),
    FieldDescriptor.TYPE_STRING: pa.string(),
    FieldDescriptor.TYPE_BYTES: pa.binary(),
    FieldDescriptor.TYPE_INT32: pa.int32(),
    FieldDescriptor.TYPE_INT64: pa.int64(),
    FieldDescriptor.TYPE_UINT32: pa.uint32(),
    FieldDescriptor.TYPE_UINT64: pa.uint64(),
}


def types_of(response: MessageShape) -> dict[str, Any]:
    """The names of the predicted columns of a typed batch, with their Arrow types; None for a type to infer."""
    if response.sole_unnamed_field is not None:
        return {PREDICTION: _type(response.fields[0])}
    return {field.label: _type(field) for field in response.fields}


def _type(field: FieldShape) -> Any:
    if field.is_singular:  # A tensor.
        return None
    if isinstance(field.shape, TimestampShape):
        return pa.timestamp("us", "UTC")
    return _SCALARS.get(field.shape.type) if isinstance(field.shape, ScalarShape) else None


def table_of(answer: Any, count: int, types: dict[str, Any], prefix: str) -> Any:
    """The predicted columns.

    Args:
        answer: The answer of the model to a call, or its columns by their names.
        count: Number of rows that were sent.
        types: Result of `types_of`; empty if the model has no types.
        prefix: Text before the names of columns.

    Raises:
        ScoreError: The answer is not one prediction for each row.

    """
    values_of = _columns(answer, types)
    lengths = {len(values) if isinstance(values, list | np.ndarray) else -1 for values in values_of.values()}
    if lengths != {count}:
        seen = "no list of predictions" if -1 in lengths or not lengths else f"{max(lengths)} predictions"
        raise ScoreError(
            f"the model's answer to {count} rows has {seen}, so it cannot be written beside the rows; score takes "
            "models with a prediction for each row"
        )
    pairs = [columns.column(prefix + str(name), values, types.get(name)) for name, values in values_of.items()]
    return pa.table([array for _, array in pairs], schema=pa.schema([field for field, _ in pairs]))


def _columns(answer: Any, types: dict[str, Any]) -> dict[str, Any]:
    if isinstance(answer, dict):  # In JSON, the tensors of a model with several outputs.
        return answer
    if not isinstance(answer, list):
        return {PREDICTION: answer}
    names = [] if PREDICTION in types and len(types) == 1 else _names(answer)
    return {name: [row.get(name) for row in answer] for name in names} or {PREDICTION: answer}


def _names(answer: list[Any]) -> list[str]:
    """The names in predictions that are all dicts."""
    if not all(isinstance(row, dict) for row in answer):
        return []
    return list(dict.fromkeys(name for row in answer for name in row))
