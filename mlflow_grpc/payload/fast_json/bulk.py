"""Thousands of rows of numbers, read from JSON into one array without a Python object for each.

Rule of this module: it is certain or says None. simdjson reads numbers of any depth one after the other and takes
integers for floats, so whatever could hide behind that is looked for: other brackets than those of the rows, rows of
other lengths, numbers past those that floats hold exactly. It is an optional speed-up: without pysimdjson, which
has no wheel for each Python, everything goes the way of `mlflow_grpc.payload.fast_json.decoders`.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_grpc.payload.codec import EXACT

try:
    import simdjson
except ImportError:
    simdjson = None  # type: ignore[assignment]

LEAST_CHARACTERS = 16_384
"""From which length of a payload on it is worth it."""

Matrix = npt.NDArray[np.float64]


def split(text: str) -> tuple[list[str], Matrix] | None:
    """Columns and rows of a `dataframe_split`."""
    document = _parsed(text)
    if document is None or list(document) != ["dataframe_split"]:
        return None
    table = document["dataframe_split"]
    if not isinstance(table, simdjson.Object) or sorted(table) != ["columns", "data"]:
        return None
    columns = table["columns"]
    if not isinstance(columns, simdjson.Array):
        return None
    names = [name for name in columns.as_list() if isinstance(name, str) and "[" not in name and "{" not in name]
    if len(names) < len(columns):
        return None
    matrix = _matrix(table["data"], text, objects=2, arrays=1)
    return None if matrix is None else (names, matrix)


def rows(text: str) -> Matrix | None:
    """The rows under `inputs` or `instances`."""
    document = _parsed(text)
    if document is None or list(document) not in (["inputs"], ["instances"]):
        return None
    (value,) = document.values()
    return _matrix(value, text, objects=1, arrays=0)


def _parsed(text: str) -> Any:
    """The JSON object in a text; a parser of its own, because what it gives lives in the parser."""
    if simdjson is None or len(text) < LEAST_CHARACTERS:
        return None
    try:
        document = simdjson.Parser().parse(text.encode())
    except (RuntimeError, ValueError):  # Not JSON, or not what simdjson takes: too deep, say.
        return None
    return document if isinstance(document, simdjson.Object) else None


def _matrix(value: Any, text: str, *, objects: int, arrays: int) -> Matrix | None:
    """An array of rows as a matrix, if the text has no brackets but its own and those of what is around it.

    Args:
        value: The array.
        text: The whole text, in which no string has a bracket.
        objects: How many objects are around it.
        arrays: How many arrays there are besides it.

    """
    if not isinstance(value, simdjson.Array):
        return None
    rows_found: Iterable[Any] = value
    try:
        widths = {len(row) for row in rows_found}
        flat = np.frombuffer(value.as_buffer(of_type="d"), dtype=np.float64)
    except TypeError:  # A row, or a cell, that is something else.
        return None
    count = len(value)
    if len(widths) != 1 or text.count("{") != objects or text.count("[") != count + 1 + arrays:
        return None
    (width,) = widths
    if len(flat) != count * width or not len(flat) or not (flat.min() > -EXACT and flat.max() < EXACT):
        return None
    return flat.reshape(count, width).copy()
