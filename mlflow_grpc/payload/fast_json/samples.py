"""Rows to try a model with: those of an example mixed and varied, or made up.

Rule of this module: the same comes out at each start.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def mixtures(count: int, width: int, most: int) -> list[list[int]]:
    """For each sample the row that each of its cells is taken from.

    Each column turns at a speed of its own, so that samples differ although the example may have but two rows.
    """
    return [[(turn + turn * place // 2) % count for place in range(width)] for turn in range(most)]


class Variation:
    """Makes numbers a little different each time, always the same way."""

    def __init__(self) -> None:
        self._dice = np.random.default_rng(1)

    def of(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Floats within a fifth; integers by two at the most, where their type allows it."""
        if cells.dtype.kind == "f":
            return (cells * self._dice.uniform(0.8, 1.2, cells.shape)).astype(cells.dtype)
        limits = np.iinfo(cells.dtype)
        moved = cells.astype(object) + self._dice.integers(-2, 3, cells.shape)
        return np.clip(moved, limits.min, limits.max).astype(cells.dtype)


def varied(cells: Any, vary: Variation | None) -> Any:
    """Cells made different, if they are to be and are numbers."""
    has_numbers = isinstance(cells, np.ndarray) and cells.dtype.kind in "fiu"
    return vary.of(cells) if vary is not None and has_numbers else cells


def made_up(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A column of 16 cells."""
    dice = np.random.default_rng(0)
    if dtype.kind == "f":
        return dice.normal(1, 3, 16)
    return dice.integers(0, 2 if dtype.kind == "b" else 9, 16).astype(dtype)
