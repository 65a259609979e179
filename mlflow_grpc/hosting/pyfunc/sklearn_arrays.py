"""Calls of scikit-learn with arrays in place of frames, which are faster, where the result is the same.

Rule of this module: it uses arrays only if the same result is certain. scikit-learn's own estimators use the column
names of a frame only to compare them with the names at fitting, and the signature has already checked these.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import FLAVOR_NAME, PyFuncModel

Function = Callable[[Any], Any]

_DATA_TYPES = (str, bytes, int, float, complex, type(None), np.generic, np.ndarray)
"""Types of parameters that run no code."""

_SELECT_BY_NAME = ("ColumnTransformer", "FunctionTransformer")
"""Classes that may select columns by their names."""


def predict_function(model: PyFuncModel) -> Function | None:
    """Returns the estimator's method behind a model of MLflow's scikit-learn flavor; None if it may need frames."""
    if model.loader_module != "mlflow.sklearn":
        return None
    estimator = model.get_raw_model()
    if not all(type(component).__module__.startswith("sklearn.") for component in sub_estimators(estimator)):
        return None
    if any(type(component).__name__ in _SELECT_BY_NAME for component in sub_estimators(estimator)):
        return None
    name = model.metadata.flavors[FLAVOR_NAME].get("predict_fn", "predict")
    function: Function | None = getattr(estimator, name, None)
    return function


def is_bounded(model: PyFuncModel) -> bool:
    """Returns True if an estimator that `predict_function` accepts runs only scikit-learn's code, in one thread.

    Its parameters must not be able to hold foreign code, such as a kernel or a metric. No method may be replaced, and
    joblib must not run anything in parallel.
    """
    for component in sub_estimators(model.get_raw_model()):
        params = component.get_params(deep=False) if hasattr(component, "get_params") else {}
        values = [item for value in params.values() for item in _flat(value)]
        if params.get("n_jobs") not in (None, 1) or params.get("metric") == "pyfunc":
            return False
        if not all(isinstance(item, _DATA_TYPES) or hasattr(item, "get_params") for item in values):
            return False
        if any(callable(getattr(type(component), name, None)) for name in vars(component)):
            return False
    return True


def agrees(on_array: Function, on_frame: Function, frame: pd.DataFrame) -> bool:
    """Returns True if both functions return the same bits, for all rows and for one row."""
    if set(frame.dtypes) != {np.dtype("float64")}:
        return False
    # The array has the columns of the signature in its order, so the missing names do not matter.
    warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
    try:
        return all(_is_same(on_array(rows.to_numpy()), on_frame(rows)) for rows in (frame, frame[:1]))
    except Exception:  # noqa: BLE001 - a model that does not take arrays gets frames
        return False


def _is_same(left: Any, right: Any) -> bool:
    if not isinstance(left, np.ndarray) or not isinstance(right, np.ndarray) or left.dtype != right.dtype:
        return False
    return left.shape == right.shape and bool(left.tolist() == right.tolist())


def sub_estimators(estimator: Any) -> Iterator[Any]:
    """Yields an estimator and all components in its parameters and fitted attributes, without repetition."""
    seen: dict[int, Any] = {}
    waiting = [estimator]
    while waiting:
        component = waiting.pop()
        if id(component) in seen:
            continue
        seen[id(component)] = component
        yield component
        params = component.get_params(deep=False) if hasattr(component, "get_params") else {}
        values = [item for value in (*params.values(), *vars(component).values()) for item in _flat(value)]
        waiting += [item for item in values if not isinstance(item, type) and _is_component(item)]


def _is_component(item: Any) -> bool:
    is_of_sklearn = type(item).__module__.startswith("sklearn.") and hasattr(item, "__dict__")
    return hasattr(item, "get_params") or is_of_sklearn


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value
