"""Conversion of an MLflow model's predictions to one value per row, with the output names of its signature.

Rule of this module: it uses only the form of the predictions. Other modules check the values against the signature.
"""

from typing import Any

import numpy as np
import pandas as pd

from mlflow_grpc.contract import types


def split_rows(predictions: Any, outputs: types.Record | types.Tensor | None, count: int) -> list[Any] | None:
    """Returns the prediction of each row in the form of `single_row`; None if the predictions have no `count` rows."""
    if isinstance(outputs, types.Tensor) and outputs.shape[:1] != (-1,):
        return None
    if isinstance(predictions, pd.DataFrame):
        return _records(predictions, outputs) if len(predictions) == count else None
    if isinstance(predictions, dict):
        columns = {name: _as_list(column) for name, column in predictions.items()}
        if not columns or not all(isinstance(column, list) and len(column) == count for column in columns.values()):
            return None
        rows: list[Any] = [
            {name: column[index : index + 1] for name, column in columns.items()} for index in range(count)
        ]
    else:
        items = _as_list(predictions)
        if not isinstance(items, list) or len(items) != count or _is_list_of_outputs(items, count):
            return None
        rows = [items[index : index + 1] for index in range(count)]
    return [single_row(row, outputs) for row in rows]


def _as_list(value: Any) -> Any:
    if isinstance(value, pd.Series):
        return value.to_list()
    return list(value) if isinstance(value, np.ndarray) and value.ndim else value


def _is_list_of_outputs(items: list[Any], count: int) -> bool:
    """Returns True if a list may have one item per output, each with all rows, instead of one item per row."""
    return all(getattr(item, "shape", (None,))[:1] == (count,) for item in items)


def _records(table: pd.DataFrame, outputs: types.Record | types.Tensor | None) -> list[Any]:
    """Returns the rows of a frame as dictionaries, or as bare values if its only column is the unnamed output."""
    fields = outputs.fields if isinstance(outputs, types.Record) else []
    rows = [{str(name): _to_python(value) for name, value in row.items()} for row in table.to_dict("records")]
    is_bare = len(fields) == 1 and not fields[0].name and table.shape[1] == 1
    return [next(iter(row.values())) for row in rows] if is_bare else rows


def single_row(predictions: Any, outputs: types.Record | types.Tensor | None) -> Any:
    """Returns the prediction of the only row, by output name; predictions without rows are returned complete."""
    fields = outputs.fields if isinstance(outputs, types.Record) else []
    if isinstance(predictions, dict) and fields:
        field_types = {field.name: field.type for field in fields}
        return {name: _single_value(_to_python(column), field_types.get(name)) for name, column in predictions.items()}
    if isinstance(predictions, pd.DataFrame):
        return _records(predictions, outputs)[0]
    row = _to_python(predictions)
    has_rows = not isinstance(outputs, types.Tensor) or outputs.shape[:1] == (-1,)
    if has_rows and isinstance(row, list) and len(row) == 1:
        row = row[0]
    if not fields or isinstance(row, dict) or not all(field.name for field in fields):
        return row
    values = [_single_value(row, fields[0].type)] if len(fields) == 1 else row
    if not isinstance(values, list) or len(values) != len(fields):
        return row
    return {field.name: value for field, value in zip(fields, values, strict=True)}


_SINGLE = types.Scalar | types.Enumeration | types.Record | types.MapOf


def _single_value(value: Any, field_type: types.Type | None) -> Any:
    """Returns the value of the only row from a list with one value per row; a list that is itself a value stays."""
    is_column = isinstance(value, list) and len(value) == 1
    if is_column and (isinstance(field_type, _SINGLE) or (field_type is not None and isinstance(value[0], list))):
        return value[0]
    return value


def _to_python(value: Any) -> Any:
    """Converts arrays and pandas Series to lists of Python values; timestamps keep their nanoseconds."""
    if isinstance(value, pd.Series):
        value = value.to_list()
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _to_python(item) for name, item in value.items()}
    return [_to_python(item) for item in value] if isinstance(value, list | np.ndarray) else value
