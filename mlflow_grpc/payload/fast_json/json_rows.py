"""Checks and conversions of parsed JSON that all fast decoders use.

Rule of this module: it knows lists and objects, and neither columns nor types of cells.
"""

import json
from itertools import chain
from typing import Any

import orjson


def only_entry(text: str, *, reads_nan: bool = False) -> tuple[str, Any] | None:
    """Returns the key and value of a JSON object with exactly one entry; None for any other text.

    Args:
        text: The text.
        reads_nan: True to read the NaN of Python's and MLflow's writers, which is not JSON, as null.

    """
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError:
        payload = _with_nan_as_null(text) if reads_nan and "NaN" in text else None
    if type(payload) is not dict or len(payload) != 1:
        return None
    (entry,) = payload.items()
    return entry


def _with_nan_as_null(text: str) -> Any:
    """Parses JSON in which NaN may stand for a number; None for any other text."""
    try:
        return json.loads(text, parse_constant=_null_for_nan)
    except (ValueError, RecursionError):
        return None


def _null_for_nan(constant: str) -> None:
    if constant != "NaN":
        raise ValueError(constant)


def is_rectangle(rows: list[Any], width: int) -> bool:
    """Returns True if the rows are lists of `width` items; False if there are no rows."""
    if len(rows) == 1:
        return type(rows[0]) is list and len(rows[0]) == width
    return set(map(type, rows)) == {list} and set(map(len, rows)) == {width}


def flatten(rows: list[list[Any]]) -> list[Any]:
    """Chains the rows into one list; a single row is returned itself."""
    return rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
