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

_CHOOSE_BY_NAME = ("ColumnTransformer", "FunctionTransformer")


def predict_function(model: PyFuncModel) -> Function | None:
    """The estimator's own method behind a model of MLflow's scikit-learn flavor, or None if it is no candidate."""
    if model.loader_module != "mlflow.sklearn":
        return None
    estimator = model.get_raw_model()
    if not all(type(part).__module__.startswith("sklearn.") for part in _parts(estimator)):
        return None
    if any(type(part).__name__ in _CHOOSE_BY_NAME for part in _parts(estimator)):
        return None
    name = model.metadata.flavors[FLAVOR_NAME].get("predict_fn", "predict")
    function: Function | None = getattr(estimator, name, None)
    return function


def is_bounded(model: PyFuncModel) -> bool:
    """Whether an estimator that `predict_function` takes runs nothing but scikit-learn in one thread: no function that
    was given to it, a kernel or a metric say, and nothing of joblib's.
    """
    for part in _parts(model.get_raw_model()):
        params = part.get_params(deep=False) if hasattr(part, "get_params") else {}
        given = [item for value in params.values() for item in _flat(value)]
        if params.get("n_jobs") not in (None, 1):
            return False
        if any(callable(item) and not hasattr(item, "get_params") for item in given):
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


def _parts(estimator: Any) -> Iterator[Any]:
    """An estimator and all that it is made of, as its parameters and fitted attributes tell."""
    yield estimator
    found = [*getattr(estimator, "get_params", dict)(deep=False).values(), *vars(estimator).values()]
    for value in found:
        for item in _flat(value):
            if hasattr(item, "get_params") and item is not estimator:
                yield from _parts(item)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value
