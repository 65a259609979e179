"""Exact conversion of the cells of a column to an array.

Rule of this module: it returns None at the first cell that MLflow would cast, refuse or read differently.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from _mlflow_grpc_protocol.json_values import MAX_EXACT_INTEGER
from mlflow.types import DataType

INTEGER_LIMIT = 2**63
"""Floats from here on are not converted, because orjson also makes them from integers past 64 bits.

MLflow reads such a number as an integer.
"""

MAX_PYTHON_CELLS = 64
"""Maximum number of cells for which Python's min and max are faster than numpy's."""

_FLOAT, _NUMBERS = {float}, {float, int}

Column = Sequence[Any]

Cells = Callable[[Column], Any]
"""Converts cells to an array, or strings to a list; None if a cell has another type or is not exact in the type."""


def _within(cells: Column, array: npt.NDArray[Any], low: float, high: float) -> bool:
    """Returns True if all cells are above `low` and below `high`."""
    if len(cells) <= MAX_PYTHON_CELLS:
        return bool(low < min(cells) and max(cells) < high)
    return bool(low < array.min() and array.max() < high)


def _booleans(cells: Column) -> npt.NDArray[Any] | None:
    return np.array(cells, dtype=bool) if set(map(type, cells)) == {bool} else None


def _strings(cells: Column) -> Column | None:
    # Two of the formats go through numpy in MLflow, which drops NULs at the end of a text.
    return cells if set(map(type, cells)) == {str} and not any("\0" in text for text in cells) else None


def _integers(dtype: npt.DTypeLike) -> Cells:
    limits = np.iinfo(np.dtype(dtype))
    low, high = int(limits.min) - 1, int(limits.max) + 1

    def cells_of(cells: Column) -> npt.NDArray[Any] | None:
        if set(map(type, cells)) != {int}:
            return None
        try:
            array = np.array(cells, dtype=np.int64)
        except OverflowError:
            return None
        return array.astype(dtype, copy=False) if _within(cells, array, low, high) else None

    return cells_of


def _floats(dtype: npt.DTypeLike) -> Cells:
    max_float = min(float(np.finfo(np.dtype(dtype)).max), float(INTEGER_LIMIT))
    is_wide = np.dtype(dtype) == np.float64

    def cells_of(cells: Column) -> npt.NDArray[Any] | None:
        types = set(map(type, cells))
        if types == _FLOAT:
            limit = max_float
        elif types <= _NUMBERS:
            limit = MAX_EXACT_INTEGER
        else:
            return None
        array = np.array(cells, dtype=np.float64)
        if not _within(cells, array, -limit, limit):
            return None
        return array if is_wide else array.astype(dtype)

    return cells_of


def _floats_or_missing(dtype: npt.DTypeLike) -> Cells:
    """Like `_floats`; a cell that is None becomes NaN, as in the frames that MLflow makes."""
    complete = _floats(dtype)

    def cells_of(cells: Column) -> Any:
        if None not in cells:
            return complete(cells)
        present = [cell for cell in cells if cell is not None]
        numbers = complete(present) if present else present
        if numbers is None:
            return None
        array = np.full(len(cells), np.nan, dtype)
        array[[cell is not None for cell in cells]] = numbers
        return array

    return cells_of


OF_COLUMN: dict[DataType, Cells] = {
    DataType.boolean: _booleans,
    DataType.integer: _integers(np.int32),
    DataType.long: _integers(np.int64),
    DataType.float: _floats(np.float32),
    DataType.double: _floats(np.float64),
    DataType.string: _strings,
}

OF_FLOATS: dict[DataType, Cells] = {
    DataType.float: _floats_or_missing(np.float32),
    DataType.double: _floats_or_missing(np.float64),
}
"""For columns of floats whose numbers may be missing."""

OF_TENSOR: dict[np.dtype[Any], Cells] = {
    np.dtype(dtype): (_floats if np.dtype(dtype).kind == "f" else _integers)(dtype)
    for dtype in (np.float64, np.float32, np.int64, np.int32, np.int16, np.int8, np.uint8, np.uint16, np.uint32)
}
