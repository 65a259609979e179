"""Checks and conversions of parsed JSON that all fast decoders use.

Rule of this module: it knows lists and objects, and neither columns nor types of cells.
"""

from itertools import chain
from typing import Any

import orjson


def only_entry(text: str) -> tuple[str, Any] | None:
    """Returns the key and value of a JSON object with exactly one entry; None for any other text."""
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(payload) is not dict or len(payload) != 1:
        return None
    (entry,) = payload.items()
    return entry


def is_rectangle(rows: list[Any], width: int) -> bool:
    """Returns True if the rows are lists of `width` items; False if there are no rows."""
    if len(rows) == 1:
        return type(rows[0]) is list and len(rows[0]) == width
    return set(map(type, rows)) == {list} and set(map(len, rows)) == {width}


def flatten(rows: list[list[Any]]) -> list[Any]:
    """Chains the rows into one list; a single row is returned itself."""
    return rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
