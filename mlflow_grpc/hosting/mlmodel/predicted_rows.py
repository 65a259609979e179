"""What an MLflow model predicted, as one value for each row, by the names of its signature.

Rule of this module: it looks at the form alone. Whether the values are what the signature says is checked elsewhere.
"""

from typing import Any

import numpy as np
import pandas as pd

from mlflow_grpc.contract import types


def each_row(predictions: Any, outputs: types.Record | types.Tensor | None, count: int) -> list[Any] | None:
    """What was predicted for each of several rows, as `only_row` gives it for one; None if it has no such rows."""
    if isinstance(outputs, types.Tensor) and outputs.shape[:1] != (-1,):
        return None
    if isinstance(predictions, pd.DataFrame):
        return _records(predictions, outputs) if len(predictions) == count else None
    if isinstance(predictions, dict):
        columns = {name: _listed(column) for name, column in predictions.items()}
        if not columns or not all(isinstance(each, list) and len(each) == count for each in columns.values()):
            return None
        rows: list[Any] = [{name: column[at : at + 1] for name, column in columns.items()} for at in range(count)]
    else:
        found = _listed(predictions)
        if not isinstance(found, list) or len(found) != count or _is_list_of_outputs(found, count):
            return None
        rows = [found[at : at + 1] for at in range(count)]
    return [only_row(row, outputs) for row in rows]


def _listed(value: Any) -> Any:
    if isinstance(value, pd.Series):
        return value.to_list()
    return list(value) if isinstance(value, np.ndarray) and value.ndim else value


def _is_list_of_outputs(found: list[Any], count: int) -> bool:
    """Whether a list may have an item for each output, and not one for each row."""
    return all(getattr(item, "shape", (None,))[:1] == (count,) for item in found)


def _records(table: pd.DataFrame, outputs: types.Record | types.Tensor | None) -> list[Any]:
    """The rows of a frame as dictionaries; as bare values where it has but one column and the output no name."""
    fields = outputs.fields if isinstance(outputs, types.Record) else []
    rows = [{str(name): _plain(each) for name, each in row.items()} for row in table.to_dict("records")]
    is_bare = len(fields) == 1 and not fields[0].name and table.shape[1] == 1
    return [next(iter(row.values())) for row in rows] if is_bare else rows


def only_row(predictions: Any, outputs: types.Record | types.Tensor | None) -> Any:
    """What was predicted for the one row, by the names of the output; the whole of what has no rows."""
    fields = outputs.fields if isinstance(outputs, types.Record) else []
    if isinstance(predictions, dict) and fields:
        kinds = {each.name: each.type for each in fields}
        return {name: _of_one(_plain(each), kinds.get(name)) for name, each in predictions.items()}
    if isinstance(predictions, pd.DataFrame):
        return _records(predictions, outputs)[0]
    row = _plain(predictions)
    has_rows = not isinstance(outputs, types.Tensor) or outputs.shape[:1] == (-1,)
    if has_rows and isinstance(row, list) and len(row) == 1:
        row = row[0]
    if not fields or isinstance(row, dict) or not all(each.name for each in fields):
        return row
    values = [_of_one(row, fields[0].type)] if len(fields) == 1 else row
    if not isinstance(values, list) or len(values) != len(fields):
        return row
    return {each.name: value for each, value in zip(fields, values, strict=True)}


_SINGLE = types.Scalar | types.Enumeration | types.Record | types.MapOf


def _of_one(value: Any, kind: types.Type | None) -> Any:
    """The value for the one row out of a list of values; a list that is a value itself stays."""
    is_column = isinstance(value, list) and len(value) == 1
    if is_column and (isinstance(kind, _SINGLE) or (kind is not None and isinstance(value[0], list))):
        return value[0]
    return value


def _plain(value: Any) -> Any:
    """Arrays and pandas' columns as lists, their numbers as Python's; points in time keep their nanoseconds."""
    if isinstance(value, pd.Series):
        value = value.to_list()
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | np.ndarray) else value
