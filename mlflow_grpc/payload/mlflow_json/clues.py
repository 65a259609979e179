"""Possible reasons in a payload for an exception of the model: missing values, columns that were left out, no rows.

Rule of this module: it runs only after a model has failed, and does not interpret the exception. The log gets no names
except those of the model's signature.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import Schema

from mlflow_grpc.errors import FieldViolation, ModelFailed

MAX_COLUMNS, MAX_ROWS = 16, 5
"""Maximum number of columns in an error, and of rows for each column."""


def with_clues(failed: ModelFailed, data: Any, schema: Schema | None) -> ModelFailed:
    """Returns the error with the columns that have missing values; the error itself if there are none.

    Args:
        failed: The model's error.
        data: The model's input.
        schema: The model's input schema; None if it has none.

    """
    names = None if schema is None or not schema.has_input_names() else list(schema.input_names())
    count = _count(data)
    violations = tuple(_violations(data, names, count))[:MAX_COLUMNS] if count else ()
    if count and not violations:
        return failed
    listed = "; ".join(f"{violation.field} {violation.description}" for violation in violations)
    return ModelFailed(
        f"{failed.message} {f'Missing values may be why: {listed}.' if count else 'The payload has no rows.'}",
        status=failed.status,
        reason=failed.reason,
        error_class=failed.error_class,
        violations=violations,
        logged=failed.message if names is None else None,
    )


def _count(data: Any) -> int:
    """Returns the number of rows of the longest column; that of an input without columns."""
    return max(map(_length, data.values()), default=1) if isinstance(data, dict) else _length(data)


def _length(value: Any) -> int:
    """Returns the number of rows of a table, an array or a list. Any other value is one row."""
    if isinstance(value, np.ndarray) and not value.ndim:  # MLflow makes it of a number, a string or null.
        return 1
    return len(value) if isinstance(value, pd.DataFrame | pd.Series | np.ndarray | list) else 1


def _violations(data: Any, names: list[Any] | None, count: int) -> Iterator[FieldViolation]:
    if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        data = pd.DataFrame(data)
    if isinstance(data, pd.DataFrame):
        data = dict(data.items()) if data.columns.is_unique else {}
    elif not isinstance(data, dict):
        data, names = {"the input": data}, None
    for name in list(data) if names is None else names:
        if name not in data:
            yield FieldViolation(str(name), "is left out")
        elif rows := _missing(data[name]):
            yield FieldViolation(str(name), _description(rows, count))


def _missing(column: Any) -> list[int]:
    """Returns the indexes of the rows in which a value is missing."""
    values = pd.Series(column, dtype=object) if isinstance(column, list) else column
    is_missing = np.asarray(pd.isna(values))
    if not is_missing.ndim:
        return [0] if is_missing else []
    return [int(row) for row in np.flatnonzero(is_missing.any(axis=tuple(range(1, is_missing.ndim))))]


def _description(rows: list[int], count: int) -> str:
    if len(rows) >= count:
        return "has no value (null or NaN)" if count == 1 else "has no value (null or NaN) in any row"
    more = f" and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
    listed = ", ".join(map(str, rows[:MAX_ROWS]))
    return f"has no value (null or NaN) in row{'s' if len(rows) > 1 else ''} {listed}{more}, counted from 0"
