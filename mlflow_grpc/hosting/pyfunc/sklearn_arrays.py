"""Calling scikit-learn with arrays in place of frames, where that gives the same.

Rule of this module: it is certain or says no. What it knows of scikit-learn is that its own estimators look at a
frame's column names only to compare them with those they were fitted with, which a signature has settled.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import FLAVOR_NAME, PyFuncModel

Function = Callable[[Any], Any]

_PLAIN = (str, bytes, int, float, complex, type(None), np.generic, np.ndarray)
"""What a parameter may be that runs no code."""

_CHOOSE_BY_NAME = ("ColumnTransformer", "FunctionTransformer")


def predict_function(model: PyFuncModel) -> Function | None:
    """The estimator's own method behind a model of MLflow's scikit-learn flavor, or None if it is no candidate."""
    if model.loader_module != "mlflow.sklearn":
        return None
    estimator = model.get_raw_model()
    if not all(type(part).__module__.startswith("sklearn.") for part in parts_of(estimator)):
        return None
    if any(type(part).__name__ in _CHOOSE_BY_NAME for part in parts_of(estimator)):
        return None
    name = model.metadata.flavors[FLAVOR_NAME].get("predict_fn", "predict")
    function: Function | None = getattr(estimator, name, None)
    return function


def is_bounded(model: PyFuncModel) -> bool:
    """Whether an estimator that `predict_function` takes runs nothing but scikit-learn in one thread: nothing was given
    to it that could be a stranger's code, a kernel or a metric say, no method was replaced, and nothing is joblib's.
    """
    for part in parts_of(model.get_raw_model()):
        params = part.get_params(deep=False) if hasattr(part, "get_params") else {}
        given = [item for value in params.values() for item in _flat(value)]
        if params.get("n_jobs") not in (None, 1) or params.get("metric") == "pyfunc":
            return False
        if not all(isinstance(item, _PLAIN) or hasattr(item, "get_params") for item in given):
            return False
        if any(callable(getattr(type(part), name, None)) for name in vars(part)):
            return False
    return True


def agrees(on_array: Function, on_frame: Function, frame: pd.DataFrame) -> bool:
    """Whether both ways give the same to the bit, for all rows and for one."""
    if set(frame.dtypes) != {np.dtype("float64")}:
        return False
    # The names that it misses are those of the signature, in its order.
    warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
    try:
        return all(_same(on_array(part.to_numpy()), on_frame(part)) for part in (frame, frame[:1]))
    except Exception:  # noqa: BLE001 - a model that cannot take arrays is given frames
        return False


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray) or one.dtype != other.dtype:
        return False
    return one.shape == other.shape and bool(one.tolist() == other.tolist())


def parts_of(estimator: Any) -> Iterator[Any]:
    """An estimator and all that it is made of, as its parameters and fitted attributes tell; each once."""
    seen: dict[int, Any] = {}
    waiting = [estimator]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        params = part.get_params(deep=False) if hasattr(part, "get_params") else {}
        found = [item for value in (*params.values(), *vars(part).values()) for item in _flat(value)]
        waiting += [item for item in found if not isinstance(item, type) and _is_part(item)]


def _is_part(item: Any) -> bool:
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
