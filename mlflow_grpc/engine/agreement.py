"""The comparison of what two models predicted for the same rows.

Rule of this module: it compares values, not their containers: an array, a list and a table of the same numbers agree.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-6
"""Relative difference up to which two numbers agree: sums in another order, or in 32 bits, differ by less."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison."""

    agrees: bool
    """True if all values are equal; numbers, within TOLERANCE."""
    difference: float | None = None
    """Largest absolute difference of two numbers; None if there are none, or not as many values on both sides."""


def compare(expected: object, predicted: object) -> Agreement:
    """Compares predictions with those of the champion.

    Args:
        expected: Return value of the champion for the rows of a request.
        predicted: Return value of the challenger.

    """
    predicted = _aligned(predicted, expected)
    first, second = _numbers(expected), _numbers(predicted)
    if first is not None and second is not None:
        return _compare_numbers(first, second) if first.size == second.size else Agreement(agrees=False)
    return _compare_values(_values(expected), _values(predicted))


def _compare_values(first: list[object], second: list[object]) -> Agreement:
    if len(first) != len(second):
        return Agreement(agrees=False)
    numbers, agrees = [], True
    for pair in zip(first, second, strict=True):
        if isinstance(pair[0], Real) and isinstance(pair[1], Real):
            numbers.append(pair)
        else:
            agrees = agrees and bool(pair[0] == pair[1])
    if not numbers:
        return Agreement(agrees)
    compared = _compare_numbers(*(np.asarray(side, np.float64) for side in zip(*numbers, strict=True)))
    return Agreement(agrees and compared.agrees, compared.difference)


def _compare_numbers(first: Numbers, second: Numbers) -> Agreement:
    if not first.size:
        return Agreement(agrees=True)
    agrees = bool(np.isclose(second, first, rtol=TOLERANCE, atol=0.0, equal_nan=True).all())
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        differences = np.where(is_same, 0.0, np.abs(first - second))
    return Agreement(agrees, float(differences.max()))


def _aligned(table: Any, expected: object) -> object:
    """Returns a table with its columns in the order of another one that has the same; anything else unchanged."""
    columns, order = getattr(table, "columns", None), getattr(expected, "columns", None)
    if columns is None or order is None or sorted(map(str, columns)) != sorted(map(str, order)):
        return table
    return table[list(order)]


def _numbers(predictions: object) -> Numbers | None:
    """Returns the numbers of predictions that are an array or a table of nothing else, in order."""
    if hasattr(predictions, "to_numpy"):
        predictions = predictions.to_numpy()
    if not isinstance(predictions, np.ndarray) or predictions.dtype.kind not in "biuf":
        return None
    return predictions.ravel().astype(np.float64)


def _values(predictions: object) -> list[object]:
    """Returns all values of predictions in order, and those of a dictionary with its keys, in their order."""
    if hasattr(predictions, "to_numpy"):
        predictions = predictions.to_numpy()
    if hasattr(predictions, "model_dump"):
        predictions = predictions.model_dump()
    if isinstance(predictions, np.ndarray):
        predictions = predictions.ravel().tolist()
    if isinstance(predictions, dict):
        items = sorted(predictions.items(), key=lambda item: str(item[0]))
        return [value for key, item in items for value in (str(key), *_values(item))]
    if isinstance(predictions, list | tuple):
        return [value for item in predictions for value in _values(item)]
    return [predictions]
