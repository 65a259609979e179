"""Arrays out of the cells of a column, where that is exact.

Rule of this module: None at the first cell that MLflow would cast, refuse or see in another way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.types import DataType

from mlflow_grpc.payload.codec import EXACT

SIXTY_FOUR_BITS = 2**63
"""orjson makes a float of an integer past 64 bits, which MLflow sees as the integer that it is."""

FEW = 64
"""Up to so many cells Python finds the least and the greatest faster than numpy."""

_FLOAT, _NUMBERS = {float}, {float, int}

Column = Sequence[Any]

Cells = Callable[[Column], Any]
"""Makes an array of cells, or for strings a list; None if they are not all of the type or not exact in it."""


def _within(cells: Column, array: npt.NDArray[Any], low: float, high: float) -> bool:
    """Whether all cells are between the two, neither of which is included."""
    if len(cells) <= FEW:
        return bool(low < min(cells) and max(cells) < high)
    return bool(low < array.min() and array.max() < high)


def _booleans(cells: Column) -> npt.NDArray[Any] | None:
    return np.array(cells, dtype=bool) if set(map(type, cells)) == {bool} else None


def _strings(cells: Column) -> Column | None:
    # numpy, which MLflow goes through in two formats, drops NULs at the end of a text.
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
    greatest = min(float(np.finfo(np.dtype(dtype)).max), float(SIXTY_FOUR_BITS))
    is_wide = np.dtype(dtype) == np.float64

    def cells_of(cells: Column) -> npt.NDArray[Any] | None:
        kinds = set(map(type, cells))
        if kinds == _FLOAT:
            limit = greatest
        elif kinds <= _NUMBERS:
            limit = EXACT
        else:
            return None
        array = np.array(cells, dtype=np.float64)
        if not _within(cells, array, -limit, limit):
            return None
        return array if is_wide else array.astype(dtype)

    return cells_of


OF_COLUMN: dict[DataType, Cells] = {
    DataType.boolean: _booleans,
    DataType.integer: _integers(np.int32),
    DataType.long: _integers(np.int64),
    DataType.float: _floats(np.float32),
    DataType.double: _floats(np.float64),
    DataType.string: _strings,
}

OF_TENSOR: dict[np.dtype[Any], Cells] = {
    np.dtype(kind): (_floats if np.dtype(kind).kind == "f" else _integers)(kind)
    for kind in (np.float64, np.float32, np.int64, np.int32, np.int16, np.int8, np.uint8, np.uint16, np.uint32)
}
