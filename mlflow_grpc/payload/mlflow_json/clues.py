"""What about a payload may be why a model raised: missing values, columns that were left out, no rows at all.

Rule of this module: it guesses at nothing in the exception, and looks only once a model has failed. The log gets no
names but those of the model's signature.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import Schema

from mlflow_grpc.errors import FieldViolation, ModelFailed

MOST_COLUMNS, MOST_ROWS = 16, 5
"""How many columns are named, and how many rows of each."""


def with_clues(failed: ModelFailed, data: Any, schema: Schema | None) -> ModelFailed:
    """The error with the columns that have missing values, or as it is if there are none.

    Args:
        failed: What the model failed with.
        data: What it was given, as it was parsed.
        schema: What it takes; None if it says nothing.

    """
    names = None if schema is None or not schema.has_input_names() else list(schema.input_names())
    count = _count(data)
    violations = tuple(_of_columns(data, names, count))[:MOST_COLUMNS] if count else ()
    if count and not violations:
        return failed
    listed = "; ".join(f"{each.field} {each.description}" for each in violations)
    return ModelFailed(
        f"{failed.message} {f'Missing values may be why: {listed}.' if count else 'The payload has no rows.'}",
        status=failed.status,
        reason=failed.reason,
        error_class=failed.error_class,
        violations=violations,
        logged=failed.message if names is None else None,
    )


def _count(data: Any) -> int:
    if isinstance(data, pd.DataFrame | np.ndarray | list):
        return len(data)
    return max((len(each) for each in data.values() if hasattr(each, "__len__")), default=1) if data else 1


def _of_columns(data: Any, names: list[Any] | None, count: int) -> Iterator[FieldViolation]:
    if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        data = pd.DataFrame(data)
    if isinstance(data, pd.DataFrame):
        data = dict(data.items()) if data.columns.is_unique else {}
    elif not isinstance(data, dict):
        data, names = {"the input": data}, None
    for name in list(data) if names is None else names:
        if name not in data:
            yield FieldViolation(str(name), "is left out")
        elif places := _missing(data[name]):
            yield FieldViolation(str(name), _words(places, count))


def _missing(column: Any) -> list[int]:
    """The rows in which a value is missing."""
    absent = pd.isna(column) if not isinstance(column, list) else pd.isna(pd.Series(column, dtype=object))
    found = np.asarray(absent)
    if not found.ndim:
        return [0] if found else []
    return [int(place) for place in np.flatnonzero(found.reshape(len(found), -1).any(axis=1))]


def _words(places: list[int], count: int) -> str:
    if len(places) >= count:
        return "has no value (null or NaN)" if count == 1 else "has no value (null or NaN) in any row"
    more = f" and {len(places) - MOST_ROWS} more" if len(places) > MOST_ROWS else ""
    rows = ", ".join(map(str, places[:MOST_ROWS]))
    return f"has no value (null or NaN) in row{'s' if len(places) > 1 else ''} {rows}{more}, counted from 0"
