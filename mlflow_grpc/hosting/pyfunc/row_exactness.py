"""Checks that an estimator computes the same numbers for a row in a batch as for the row alone.

Rule of this module: it reports a model as exact only if that is certain.

It compares the numbers that decide an answer, because comparing answers is not enough. Libraries for linear algebra add
up several rows in another order than one row. An estimator that makes labels of such sums, or picks neighbours by them,
still returns the same answer for most rows, but another one where two candidates are almost tied.
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

from mlflow_grpc.hosting.pyfunc.label_scores import LabelScores
from mlflow_grpc.hosting.pyfunc.sklearn_arrays import sub_estimators

Function = Callable[[Any], Any]
Numbers = list[npt.NDArray[Any]]

_SCORE_METHODS = (
    "decision_function",
    "predict_joint_log_proba",
    "predict_proba",
    "transform",
    "kneighbors",
    "score_samples",
)
"""Methods of estimators that return the numbers behind an answer; an estimator without any has only `predict`."""

_METHOD_BY_CLASSIFIER = {
    "LinearClassifierMixin": "decision_function",
    "QuadraticDiscriminantAnalysis": "decision_function",
    "_BaseNB": "predict_joint_log_proba",
    "MLPClassifier": "predict_proba",
}
"""Classes of scikit-learn whose label depends on the best score alone, with the method that returns the scores.

If the best score is well above the next one, no rounding error changes the label.
"""

_BY_DISTANCE = ("sklearn.neighbors.", "sklearn.cluster.", "sklearn.semi_supervised.", "sklearn.impute._knn")
"""Modules of estimators that pick the nearest rows by internal distances; those they return are computed again."""

_LIBRARIES = ("sklearn.", "xgboost.", "lightgbm.", "catboost.")
"""Libraries whose estimators have `n_features_in_`, unless they take texts or labels, or are trees."""

_ENCODERS = ("sklearn.preprocessing._encoders", "sklearn.preprocessing._label", "sklearn.compose.", "sklearn.pipeline")
"""Modules of estimators that may take only categories or texts, and that add nothing up.

Compositions are among them, because their sub-estimators are checked separately.
"""

_TREE_METHODS = ("kd_tree", "ball_tree")
"""Methods of neighbour search that process one row at a time."""

_BATCH_SHAPES = (
    (2, np.asfortranarray),
    (7, np.ascontiguousarray),
    (128, np.asfortranarray),
    (128, np.ascontiguousarray),
)
"""Sizes of the batches that are tried, with the memory layout of their rows."""

_MIN_ROWS, _MAX_ROWS, _BUDGET_S = 24, 256, 0.05
"""Number of rows that an estimator is tried with: as many as it predicts one by one in the budget.

The minimum holds for slow estimators and on busy machines. When three numbers are added up in another order, a third of
the sums differ, so 24 rows leave a chance of one in 10,000 that no difference is seen.
"""

_MAX_EQUIVALENT = 2
"""Maximum number of equivalent sub-estimators that are tried, because all trees of a forest compute alike."""


class BatchExactness(Enum):
    """How the numbers for rows in a batch compare with the numbers for the same rows alone."""

    EXACT = auto()
    EXCEPT_TIES = auto()
    """The numbers differ, which changes an answer only if two labels are tied."""
    UNKNOWN = auto()
    """The numbers differ or cannot be compared, which may change any answer."""


def check_exactness(model: PyFuncModel, table: Any) -> tuple[BatchExactness, LabelScores | None]:
    """Checks how exact a model is; returns its scores too if it is exact except for ties.

    Args:
        model: A model of a flavor that predicts each row by itself.
        table: Sample rows in the form that the model takes.

    """
    estimator = model.get_raw_model()
    precisions, has_missing = _precisions(table), bool(pd.isna(table).any(axis=None))
    tried: Counter[str] = Counter()
    inexact = []
    for component in sub_estimators(estimator):
        width = getattr(component, "n_features_in_", None)
        if _inner(component) is not None:
            continue
        if not isinstance(width, Integral):
            if _is_unknown(component):
                inexact.append(component)
            continue
        computation = _computation_key(component, width)
        tried[computation] += 1
        if tried[computation] <= _MAX_EQUIVALENT and not all(
            _is_exact(component, width, precision, has_missing=has_missing) for precision in precisions
        ):
            inexact.append(component)
    if not inexact:
        return BatchExactness.EXACT, None
    last = _last_of(estimator)
    scores = _scores_of(last)
    if (
        scores is None
        or any(component is not last for component in inexact)
        or model.metadata.flavors[FLAVOR_NAME].get("predict_fn", "predict") != "predict"
        or np.ndim(estimator.predict(table.copy())) != 1
    ):
        return BatchExactness.UNKNOWN, None
    return BatchExactness.EXCEPT_TIES, LabelScores(estimator, scores, table)


def _is_unknown(component: Any) -> bool:
    """Returns True if a component without `n_features_in_` computes something and comes from an unknown library."""
    computes = any(hasattr(component, method) for method in (*_SCORE_METHODS, "predict"))
    return computes and not type(component).__module__.startswith(_LIBRARIES)


def _computation_key(component: Any, width: Integral) -> str:
    """Returns a key that is equal for components that compute in the same way.

    The key contains the method of neighbour search, because scikit-learn may choose it when it fits an estimator.
    """
    params = component.get_params(deep=False) if hasattr(component, "get_params") else {}
    params = {name: value for name, value in params.items() if name != "random_state"}
    return repr((type(component), width, getattr(component, "_fit_method", None), params))


def _inner(estimator: Any) -> Any:
    """Returns the estimator that predicts in a pipeline or a search, which compute nothing themselves; else None."""
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else getattr(estimator, "best_estimator_", None)


def _last_of(estimator: Any) -> Any:
    """Returns the innermost estimator that predicts."""
    inner = _inner(estimator)
    return estimator if inner is None else _last_of(inner)


def _scores_of(estimator: Any) -> str | None:
    """Returns the name of the method whose best score decides the label; None if the class is not in the table."""
    if not type(estimator).__module__.startswith("sklearn."):
        return None
    return next(
        (
            _METHOD_BY_CLASSIFIER[base.__name__]
            for base in type(estimator).__mro__
            if base.__name__ in _METHOD_BY_CLASSIFIER
        ),
        None,
    )


def _precisions(table: Any) -> list[type[np.floating[Any]]]:
    """Returns the precisions in which a model may add up the rows; single precision only if a column fits into it."""
    dtypes = [table.dtype] if isinstance(table, np.ndarray) else table.dtypes
    narrow = [dtype for dtype in dtypes if dtype.kind in "fiub" and np.result_type(dtype, np.float32) == np.float32]
    return [np.float64, np.float32] if narrow else [np.float64]


def _is_exact(component: Any, width: Integral, precision: type[np.floating[Any]], *, has_missing: bool) -> bool:
    if (
        type(component).__module__.startswith(_BY_DISTANCE)
        and getattr(component, "_fit_method", None) not in _TREE_METHODS
    ):
        return False
    rows: npt.NDArray[Any] = np.random.default_rng(0).normal(size=(_MAX_ROWS, int(width))).astype(precision)
    names = getattr(component, "feature_names_in_", None)
    methods = [method for method in _SCORE_METHODS if hasattr(component, method)] or ["predict"]
    for method in methods:
        function = getattr(component, method, None)
        if function is None:
            continue
        on_array: Function = function if names is None else _OnFrame(function, names)
        try:
            if not _is_same_in_batches(on_array, rows):
                return False
        except Exception:  # noqa: BLE001 - it does not take such numbers
            if method != "transform" or not _is_exact_for_its_domain(component, on_array, np.abs(rows)):
                return False
        if has_missing and method == "transform" and not _is_exact_for_missing(on_array, rows):
            return False
    return True


def _is_exact_for_its_domain(component: Any, transform: Function, positive: npt.NDArray[Any]) -> bool:
    """Returns True if a component that refuses some numbers is exact for positive numbers, or takes no numbers."""
    try:
        return _is_same_in_batches(transform, positive)
    except Exception:  # noqa: BLE001 - it does not take these either
        return type(component).__module__.startswith(_ENCODERS)


def _is_exact_for_missing(transform: Function, rows: npt.NDArray[Any]) -> bool:
    """Returns True if a transformer is exact for rows with missing numbers, or takes none.

    An imputer may compute the missing numbers of several rows at once.
    """
    with_missing = rows.copy()
    with_missing[np.add.outer(np.arange(len(rows)), np.arange(rows.shape[1])) % 3 == 0] = np.nan
    try:
        return _is_same_in_batches(transform, with_missing)
    except Exception:  # noqa: BLE001 - it takes no missing numbers
        return True


class _OnFrame:
    """Adapter that calls a function of a frame with an array."""

    def __init__(self, function: Function, names: Any) -> None:
        self._function = function
        self._names = names

    def __call__(self, rows: npt.NDArray[Any]) -> Any:
        return self._function(pd.DataFrame(rows, columns=self._names, copy=False))


def _is_same_in_batches(function: Function, rows: npt.NDArray[Any]) -> bool:
    """Returns True if the rows get the same numbers in batches of all sizes; rows are repeated to fill a batch."""
    began_s = time.perf_counter()
    alone: list[Numbers] = []
    for index in range(len(rows)):
        alone.append(_numbers(function(rows[index : index + 1].copy())))
        if len(alone) >= _MIN_ROWS and time.perf_counter() - began_s > _BUDGET_S:
            break
    for size, layout in _BATCH_SHAPES:
        for start in range(0, len(alone), size):
            indices = np.arange(start, start + size) % len(alone)
            together = _numbers(function(layout(rows[indices])))
            one_by_one = (alone[index] for index in indices)
            if not all(map(_is_same, together, map(np.concatenate, zip(*one_by_one, strict=True)))):
                return False
    return True


def _numbers(value: Any) -> Numbers:
    """Converts the result of a method to arrays with one row per row; for neighbours, the distances are among them."""
    values = value if isinstance(value, list | tuple) else [value]
    return [np.asarray(array.toarray() if hasattr(array, "toarray") else array) for array in values]


def _is_same(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()
