"""Whether rows come out of an estimator the same together as alone: not its answers, but the numbers that decide them.

Rule of this module: it is certain or says no. Libraries for linear algebra take sums over several rows in another order
than over one. What makes a label of such sums, or picks neighbours by them, still gives the same for most rows, and
something else where two are as good as tied. Sample answers do not show that; the sums do.
"""

import time
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.pyfunc import FLAVOR_NAME, PyFuncModel

from mlflow_grpc.hosting.pyfunc.sklearn_arrays import parts_of

Function = Callable[[Any], Any]
Numbers = list[npt.NDArray[Any]]

_DECIDING = (
    "decision_function",
    "predict_joint_log_proba",
    "predict_proba",
    "transform",
    "kneighbors",
    "score_samples",
)
"""The methods of estimators that give the numbers of which answers are made; where there is none it is `predict`."""

_SCORES = {
    "LinearClassifierMixin": "decision_function",
    "QuadraticDiscriminantAnalysis": "decision_function",
    "_BaseNB": "predict_joint_log_proba",
    "MLPClassifier": "predict_proba",
}
"""Kinds of scikit-learn's classifiers whose label is that of the best score, and of nothing else: where the best is
well above the next, no last digit changes the label.
"""

_BY_DISTANCE = ("sklearn.neighbors.", "sklearn.cluster.", "sklearn.semi_supervised.", "sklearn.impute._knn")
"""Modules of estimators that pick the nearest by distances which they do not show; what they show is computed anew."""

_KNOWN = ("sklearn.", "xgboost.", "lightgbm.", "catboost.")
"""Libraries whose estimators say how many columns they take, unless they take texts or labels, or are trees."""

_ENCODERS = ("sklearn.preprocessing._encoders", "sklearn.preprocessing._label", "sklearn.compose.", "sklearn.pipeline")
"""Modules of what may take categories or words only, and adds nothing up: the parts of a composition are looked at each
by itself.
"""

_TREES = ("kd_tree", "ball_tree")
"""Ways to find neighbours that go by one row at a time."""

_SIZES = ((2, np.asfortranarray), (7, np.ascontiguousarray), (128, np.asfortranarray), (128, np.ascontiguousarray))
"""The sizes of the batches that are tried, and how their rows lie in memory."""

_FEWEST_ROWS, _MOST_ROWS, _BUDGET_S = 8, 256, 0.05
"""How many rows an estimator is tried with: as many as it takes alone in that time."""

_ALIKE = 2
"""How many parts of one kind, width and parameters are tried: the trees of a forest are all the same in this."""

TIE, TIE_OF_SINGLES = 1e-6, 1e-3
"""Two scores that are no further apart are tied, as a share of the largest; the last digits are far below that. Scores
of single precision have half as many.
"""


class Exactness(Enum):
    """How the numbers for rows together compare to those for the same rows alone."""

    EXACT = auto()
    BUT_FOR_TIES = auto()
    """Not the same, but only where two labels are tied does that change an answer."""
    UNKNOWN = auto()
    """Not the same, and any answer may hang on it."""


class Scores:
    """Predicts labels by their scores, and tells which rows are as good as tied."""

    def __init__(self, estimator: Any, method: str, table: Any) -> None:
        """Args:
        estimator: A classifier.
        method: The name of its method that gives a score a row for the second of two labels, or one for each label.
        table: Rows that show how large scores are.
        """
        self._scores: Function = getattr(estimator, method)
        self._labels: npt.NDArray[Any] = estimator.classes_
        usual = self._scores(table)
        direct = _direct_scores(estimator)
        if direct is not None and isinstance(table, np.ndarray) and np.array_equal(direct(table), usual):
            self._scores = direct
        self._usual = float(np.abs(usual).max())
        self._tie = TIE if usual.dtype == np.float64 else TIE_OF_SINGLES

    def predict(self, table: Any) -> tuple[npt.NDArray[Any], list[int]]:
        """The labels, and the places of the rows whose label may depend on what they are predicted with."""
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
    """The scores of a linear classifier for an array that needs no further check; None if there is no such way.

    The checks are nine tenths of the time of scikit-learn's `decision_function`. A row that they would refuse has no
    score or an endless one, which is never well above another: it is predicted alone, and refused then.
    """
    method = getattr(type(estimator), "decision_function", None)
    if getattr(method, "__qualname__", "") != "LinearClassifierMixin.decision_function":
        return None
    coefficients, intercept = estimator.coef_, estimator.intercept_
    if not isinstance(coefficients, np.ndarray):
        return None
    of_columns = coefficients.T

    def scores(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = table @ of_columns + intercept
        return found[:, 0] if found.shape[1:] == (1,) else found

    return scores


def examine(model: PyFuncModel, table: Any) -> tuple[Exactness, Scores | None]:
    """Finds out how exact a model is, and what tells the ties if it is exact but for those.

    Args:
        model: One of the flavors whose rows are independent.
        table: Sample rows, as the model is given them.

    """
    estimator = model.get_raw_model()
    precisions = _precisions(table)
    tried: Counter[str] = Counter()
    inexact = []
    for part in parts_of(estimator):
        width = getattr(part, "n_features_in_", None)
        if _inner(part) is not None:
            continue
        if not isinstance(width, Integral):
            if _is_strange(part):
                inexact.append(part)
            continue
        kind = _kind_of(part, width)
        tried[kind] += 1
        if tried[kind] <= _ALIKE and not all(_is_exact(part, width, each) for each in precisions):
            inexact.append(part)
    if not inexact:
        return Exactness.EXACT, None
    last = _last_of(estimator)
    scores = _scores_of(last)
    if (
        scores is None
        or any(part is not last for part in inexact)
        or model.metadata.flavors[FLAVOR_NAME].get("predict_fn", "predict") != "predict"
        or np.ndim(estimator.predict(table.copy())) != 1
    ):
        return Exactness.UNKNOWN, None
    return Exactness.BUT_FOR_TIES, Scores(estimator, scores, table)


def _is_strange(part: Any) -> bool:
    """Whether it computes something, and neither says how many columns it takes nor is of a library that is known."""
    computes = any(hasattr(part, method) for method in (*_DECIDING, "predict"))
    return computes and not type(part).__module__.startswith(_KNOWN)


def _kind_of(part: Any, width: Integral) -> str:
    """What parts that compute in the same way have in common: neighbours may be looked for in several ways."""
    params = part.get_params(deep=False) if hasattr(part, "get_params") else {}
    given = {name: value for name, value in params.items() if name != "random_state"}
    return repr((type(part), width, getattr(part, "_fit_method", None), given))


def _inner(estimator: Any) -> Any:
    """The estimator in a pipeline or search that predicts; they compute nothing themselves. None if it is none."""
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else getattr(estimator, "best_estimator_", None)


def _last_of(estimator: Any) -> Any:
    """The estimator that predicts in the end."""
    inner = _inner(estimator)
    return estimator if inner is None else _last_of(inner)


def _scores_of(estimator: Any) -> str | None:
    """The name of the method whose best score decides; None if that is not known."""
    if not type(estimator).__module__.startswith("sklearn."):
        return None
    return next((_SCORES[base.__name__] for base in type(estimator).__mro__ if base.__name__ in _SCORES), None)


def _precisions(table: Any) -> list[type[np.floating[Any]]]:
    """The precisions in which a model may add up such rows: single too where no column needs more."""
    dtypes = [table.dtype] if isinstance(table, np.ndarray) else table.dtypes
    narrow = [each for each in dtypes if each.kind in "fiub" and np.result_type(each, np.float32) == np.float32]
    return [np.float64, np.float32] if narrow else [np.float64]


def _is_exact(part: Any, width: Integral, precision: type[np.floating[Any]]) -> bool:
    if type(part).__module__.startswith(_BY_DISTANCE) and getattr(part, "_fit_method", None) not in _TREES:
        return False
    rows: npt.NDArray[Any] = np.random.default_rng(0).normal(size=(_MOST_ROWS, int(width))).astype(precision)
    names = getattr(part, "feature_names_in_", None)
    methods = [method for method in _DECIDING if hasattr(part, method)] or ["predict"]
    for method in methods:
        function = getattr(part, method, None)
        if function is None:
            continue
        given: Function = function if names is None else _OnFrame(function, names)
        try:
            if not _same_together(given, rows):
                return False
        except Exception:  # noqa: BLE001 - it takes no such numbers
            if method != "transform" or not _is_exact_for_others(part, given, np.abs(rows)):
                return False
    return True


def _is_exact_for_others(part: Any, transform: Function, positive: npt.NDArray[Any]) -> bool:
    """Whether what does not take any number is exact for those that it takes: none below zero, or no numbers at all."""
    try:
        return _same_together(transform, positive)
    except Exception:  # noqa: BLE001 - it does not take these either
        return type(part).__module__.startswith(_ENCODERS)


class _OnFrame:
    """A function of a frame, for arrays."""

    def __init__(self, function: Function, names: Any) -> None:
        self._function = function
        self._names = names

    def __call__(self, rows: npt.NDArray[Any]) -> Any:
        return self._function(pd.DataFrame(rows, columns=self._names, copy=False))


def _same_together(function: Function, rows: npt.NDArray[Any]) -> bool:
    began_s = time.perf_counter()
    alone: list[Numbers] = []
    for place in range(len(rows)):
        alone.append(_numbers(function(rows[place : place + 1].copy())))
        if place >= _FEWEST_ROWS and time.perf_counter() - began_s > _BUDGET_S:
            break
    for size, layout in _SIZES:
        for start in range(0, len(alone) - 1, size):
            some = alone[start : start + size]
            together = _numbers(function(layout(rows[start : start + len(some)].copy())))
            if not all(map(_same, together, map(np.concatenate, zip(*some, strict=True)))):
                return False
    return True


def _numbers(value: Any) -> Numbers:
    """What a method gave, as arrays with a row a row; of neighbours the distances."""
    values = value if isinstance(value, list | tuple) else [value]
    return [np.asarray(each.toarray() if hasattr(each, "toarray") else each) for each in values]


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
