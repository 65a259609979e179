"""Prediction of labels from the scores of a classifier, with a list of the rows whose best labels are almost tied.

Rule of this module: a row counts as tied unless its best score is well above the next one, so that rounding errors
cannot change the label of a row that does not count as tied.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Function = Callable[[Any], Any]

TIE_TOLERANCE, SINGLE_PRECISION_TIE_TOLERANCE = 1e-6, 1e-3
"""Maximum distance of two tied scores, as a share of the largest score; rounding errors are far smaller.

Scores in single precision have half as many digits.
"""


class LabelScores:
    """Predicts labels from scores, and finds the rows whose best labels are almost tied."""

    def __init__(self, estimator: Any, method: str, table: Any) -> None:
        """Measures the usual size of a score.

        Args:
            estimator: A classifier.
            method: Name of the method that returns the scores: one per label, or the second label's if there are two.
            table: Sample rows with scores of the usual size.

        """
        self._scores: Function = getattr(estimator, method)
        self._labels: npt.NDArray[Any] = estimator.classes_
        usual = self._scores(table)
        direct = _direct_scores(estimator)
        if direct is not None and isinstance(table, np.ndarray) and np.array_equal(direct(table), usual):
            self._scores = direct
        self._usual = float(np.abs(usual).max())
        self._tie = TIE_TOLERANCE if usual.dtype == np.float64 else SINGLE_PRECISION_TIE_TOLERANCE

    def predict(self, table: Any) -> tuple[npt.NDArray[Any], list[int]]:
        """Returns the labels, and the indices of the rows whose label may depend on the other rows of the batch."""
        with np.errstate(invalid="ignore", over="ignore"):
            scores = self._scores(table)
            if scores.ndim == 1:
                best = (scores > 0).astype(int)
                margins = np.abs(scores)
            else:
                best = scores.argmax(axis=1)
                first, second = np.partition(scores, -2, axis=1)[:, -2:].T[::-1]
                margins = first - second
            wide = margins > self._tie * max(self._usual, float(np.abs(scores).max()))
        clear = wide & np.isfinite(margins)
        return self._labels.take(best), [] if clear.all() else np.flatnonzero(~clear).tolist()


def _direct_scores(estimator: Any) -> Function | None:
    """Returns a function for the scores of a linear classifier without scikit-learn's checks; None for other classes.

    The classifier may be the last step of a pipeline in which all other steps are a StandardScaler. The checks are more
    than nine tenths of the time of scikit-learn's `decision_function`. A row that they would refuse has a score that is
    NaN or infinite, which counts as tied. So the row is predicted alone, and refused then.
    """
    scalers = []
    if _is_instance(estimator, "sklearn.pipeline", "Pipeline"):
        *scalers, estimator = (step for _, step in estimator.steps)
    if not all(_is_instance(scaler, "sklearn.preprocessing._data", "StandardScaler") for scaler in scalers):
        return None
    method = getattr(type(estimator), "decision_function", None)
    if getattr(method, "__qualname__", "") != "LinearClassifierMixin.decision_function":
        return None
    coefficients, intercept = estimator.coef_, estimator.intercept_
    if not isinstance(coefficients, np.ndarray):
        return None
    weights = coefficients.T
    scalings = [
        (scaler.mean_ if scaler.with_mean else 0.0, scaler.scale_ if scaler.with_std else 1.0) for scaler in scalers
    ]

    def scores(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        for mean, scale in scalings:
            table = (table - mean) / scale
        products: npt.NDArray[Any] = table @ weights + intercept
        return products[:, 0] if products.shape[1:] == (1,) else products

    return scores


def _is_instance(estimator: Any, module: str, name: str) -> bool:
    """Returns True for an instance of one class of scikit-learn, which is not imported, and not of a subclass."""
    return type(estimator).__module__ == module and type(estimator).__name__ == name
