"""Faults of the outer form of a payload: of its format, without the values of its columns or tensors.

Rule of this module: it looks at JSON types and lengths only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from mlflow.types import Schema

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.payload.mlflow_json.refusals.errors import MAX_VIOLATIONS
from mlflow_grpc.payload.mlflow_json.refusals.json_terms import article, expected


def _split_problem(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"The value of dataframe_split must be an object, it is {article(value)}."
    if "data" not in value or set(value) - {"columns", "data", "index"}:
        return "dataframe_split must have the key data, may have columns and index, and no other key."
    columns, data, index = value.get("columns"), value["data"], value.get("index")
    if problem := _labels_problem(columns):
        return problem
    if not isinstance(data, dict | list):
        return f"The data of dataframe_split must be an array of rows, it is {article(data)}."
    if isinstance(data, list) and isinstance(index, list) and len(index) != len(data):
        return f"dataframe_split has {len(index)} index labels for {len(data)} rows."
    return _rows_problem(data, columns) if isinstance(data, list) and isinstance(columns, list) else None


def _labels_problem(columns: Any) -> str | None:
    if columns is not None and not isinstance(columns, list):
        return f"The columns of dataframe_split must be an array of strings, they are {article(columns)}."
    for position, label in enumerate(columns or ()):
        if isinstance(label, dict | list):
            return f"dataframe_split.columns[{position}] must be a string, it is {article(label)}."
    return None


def _rows_problem(rows: list[Any], columns: list[Any]) -> str | None:
    for position, row in enumerate(rows):
        if isinstance(row, list) and len(row) != len(columns):
            return f"Row {position} of dataframe_split has {len(row)} values for {len(columns)} columns."
    return None


def _records_problem(value: Any) -> str | None:
    if isinstance(value, list):
        return None
    return f"The value of dataframe_records must be an array of objects, it is {article(value)}."


def _ragged_problem(key: str) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
            try:
                np.array(value)
            except ValueError:
                return f"The arrays in {key} are ragged: all of one depth must have the same length."
        return None

    return problem


SHAPE_PROBLEMS: dict[str, Callable[[Any], str | None]] = {
    "dataframe_split": _split_problem,
    "dataframe_records": _records_problem,
    "inputs": _ragged_problem("inputs"),
    "instances": _ragged_problem("instances"),
}


def lengths_problem(key: str, value: Any) -> str | None:
    """Returns a sentence about columns of different lengths; None if their lengths are the same."""
    if not isinstance(value, dict):
        return None
    lengths = [len(column) for column in value.values() if isinstance(column, list)]
    if len(set(lengths)) <= 1:
        return None
    return (
        f"The arrays in {key} have different lengths ({', '.join(map(str, lengths[:16]))}): each row needs all columns."
    )


def table_problem(key: str, value: Any, schema: Schema) -> tuple[str, list[FieldViolation]]:
    """Returns a sentence without its full stop, and the missing columns, for a value that is not a table.

    Args:
        key: Key of the format, such as `inputs`.
        value: Value under the key.
        schema: The model's input schema, of columns.

    """
    if value == []:
        return f"{key} is empty: send one row at least", []
    if schema.has_input_names():
        items = value if isinstance(value, list) else [value]
        index = next((index for index, item in enumerate(items) if not isinstance(item, dict)), 0)
        path = f"{key}[{index}]" if isinstance(value, list) else key
        names = ", ".join(str(spec.name) for spec in schema.inputs[:MAX_VIOLATIONS])
        missing = [
            FieldViolation(str(spec.name), f"missing; must be {expected(spec)}")
            for spec in schema.inputs
            if spec.required
        ]
        return (
            f"The model's inputs have names ({names}): {path} must be an object, it is {article(items[index])}",
            missing,
        )
    count = len(schema.inputs)
    if count == 1:
        return f"The model's column has no name: {key} must be an array", []
    return f"The model's {count} columns have no name: {key} must be an array of rows, each of them an array", []
