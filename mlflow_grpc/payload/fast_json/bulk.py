"""Reading of thousands of rows of numbers from JSON into one array, without a Python object for each number.

Rule of this module: it returns None unless the result is certain. simdjson flattens lists of any depth and reads
integers as floats. The module therefore checks for further brackets, rows of different lengths, and numbers that a
float cannot hold exactly. pysimdjson is optional, because it has no wheels for some Python versions. Without it, the
decoders parse each payload with orjson.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from _mlflow_grpc_protocol.json_values import MAX_EXACT_INTEGER

try:
    import simdjson
except ImportError:
    simdjson = None  # type: ignore[assignment]

MIN_CHARACTERS = 16_384
"""Minimum length of a payload, in characters. Shorter ones are not worth a simdjson parser."""

Matrix = npt.NDArray[np.float64]


def split(text: str) -> tuple[list[str], Matrix] | None:
    """Reads the column names and rows of a `dataframe_split`; None if it is not certain about them."""
    document = _parse(text)
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
    """Reads the rows under `inputs` or `instances`; None if it is not certain about them."""
    document = _parse(text)
    if document is None or list(document) not in (["inputs"], ["instances"]):
        return None
    (value,) = document.values()
    return _matrix(value, text, objects=1, arrays=0)


def _parse(text: str) -> Any:
    """Parses a JSON object, with a new parser because the document lives in the parser's memory."""
    if simdjson is None or len(text) < MIN_CHARACTERS:
        return None
    try:
        document = simdjson.Parser().parse(text.encode())
    except (RuntimeError, ValueError):  # Not JSON, or JSON that simdjson refuses, such as too deep a nesting.
        return None
    return document if isinstance(document, simdjson.Object) else None


def _matrix(value: Any, text: str, *, objects: int, arrays: int) -> Matrix | None:
    """Converts an array of rows to a matrix; None if the text has further brackets that could hide other content.

    Args:
        value: The array.
        text: The complete text, whose strings have no brackets.
        objects: Number of objects around the array.
        arrays: Number of further arrays in the text.

    """
    if not isinstance(value, simdjson.Array):
        return None
    array_rows: Iterable[Any] = value
    try:
        widths = {len(row) for row in array_rows}
        flat = np.frombuffer(value.as_buffer(of_type="d"), dtype=np.float64)
    except TypeError:  # A row that is not a list, or a cell that is not a number.
        return None
    count = len(value)
    if len(widths) != 1 or text.count("{") != objects or text.count("[") != count + 1 + arrays:
        return None
    (width,) = widths
    if (
        len(flat) != count * width
        or not len(flat)
        or not (flat.min() > -MAX_EXACT_INTEGER and flat.max() < MAX_EXACT_INTEGER)
    ):
        return None
    return flat.reshape(count, width).copy()
