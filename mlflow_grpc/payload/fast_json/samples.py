"""Sample rows to try a model with: rows of an example, resampled and jittered, or synthetic ones.

Rule of this module: its output is the same at each start of the server.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def resample_columns(row_count: int, width: int, sample_count: int) -> list[list[int]]:
    """Picks, for each sample, the row that each of its cells is taken from.

    Each column advances at its own speed, so that samples differ even if the example has only two rows.
    """
    return [[(turn + turn * column // 2) % row_count for column in range(width)] for turn in range(sample_count)]


def is_missing(sample: int, column: int) -> bool:
    """Returns True for the numbers that are missing in samples with missing numbers: a third in every second row."""
    return sample % 2 == 0 and (sample // 2 + column) % 3 == 0


def without_nan(column: Any) -> Any:
    """Returns a column of an example with synthetic numbers in place of NaN; texts unchanged."""
    if not isinstance(column, np.ndarray) or column.dtype.kind != "f":
        return column
    return np.where(np.isnan(column), np.resize(synthetic_column(column.dtype), len(column)), column)


class Jitter:
    """Changes numbers a little; each call changes them differently, in the same sequence at each start."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(1)

    def apply(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Changes floats by up to a fifth, and integers by up to two, within the limits of their type."""
        if cells.dtype.kind == "f":
            return (cells * self._generator.uniform(0.8, 1.2, cells.shape)).astype(cells.dtype)
        limits = np.iinfo(cells.dtype)
        moved = cells.astype(object) + self._generator.integers(-2, 3, cells.shape)
        return np.clip(moved, limits.min, limits.max).astype(cells.dtype)


def jittered(cells: Any, jitter: Jitter | None) -> Any:
    """Returns the cells jittered if they are numbers and there is a jitter, else unchanged."""
    has_numbers = isinstance(cells, np.ndarray) and cells.dtype.kind in "fiu"
    return jitter.apply(cells) if jitter is not None and has_numbers else cells


def synthetic_column(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Makes a column of 16 cells."""
    generator = np.random.default_rng(0)
    if dtype.kind == "f":
        return generator.normal(1, 3, 16).astype(dtype)
    return generator.integers(0, 2 if dtype.kind == "b" else 9, 16).astype(dtype)
