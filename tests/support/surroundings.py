"""Models that depend on where they are loaded and run: thread, event loop, signal handlers, context variables."""

import asyncio
import contextvars
import decimal
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from sklearn.base import BaseEstimator

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
PRECISION = 50


def enter(tenant: str) -> None:
    """Sets values that last as long as the context."""
    TENANT.set(tenant)
    decimal.getcontext().prec = PRECISION
    np.seterr(all="raise")


def division() -> str:
    """Returns the effect of a division by zero."""
    try:
        return str(np.float64(1) / np.float64(0))
    except FloatingPointError:
        return "raised"


class Surroundings(PythonModel):
    """Returns the surroundings that it found at load and at prediction."""

    def load_context(self, context: Any) -> None:
        """Uses features that only the main thread has."""
        asyncio.get_event_loop()
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self.is_in_main_thread = threading.current_thread() is threading.main_thread()
        enter((context.model_config or {}).get("tenant", "acme"))

    def _seen(self) -> list[Any]:
        tenant = TENANT.get()
        TENANT.set("set by a call")
        return [self.is_in_main_thread, tenant, str(decimal.Decimal(1) / 3), division()]

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Returns a list of what it finds."""
        return self._seen()

    def predict_stream(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Iterator[Any]:
        """Yields what it finds, twice."""
        yield self._seen()
        yield self._seen()


class SurroundingsEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator that sets the context when it is unpickled, and whose predictions show the context."""

    def fit(self, table: Any, target: Any = None) -> "SurroundingsEstimator":
        """Learns nothing."""
        self.n_features_in_ = 1
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        enter("acme")

    def predict(self, table: Any) -> np.ndarray[Any, Any]:
        """Adds the number of digits of decimals, and 1,000 if a tenant is set."""
        digits = len(str(decimal.Decimal(1) / 3)) - 2 + (1000 if TENANT.get() == "acme" else 0)
        if division() == "raised":
            digits += 10_000
        return np.asarray(pd.DataFrame(table).to_numpy()[:, 0] + digits, dtype=float)


def save(path: Path) -> None:
    """Saves `Surroundings` as a model from code, which is this file."""
    import mlflow

    mlflow.pyfunc.save_model(path, python_model=__file__, pip_requirements=["mlflow"], model_config={"tenant": "acme"})


def save_estimator(path: Path) -> None:
    """Saves `SurroundingsEstimator` as a scikit-learn model."""
    import mlflow
    from mlflow.models import infer_signature

    table = pd.DataFrame({"a": [1.5, 2.5, 3.5]})
    mlflow.sklearn.save_model(
        SurroundingsEstimator().fit(table),
        path,
        signature=infer_signature(table, np.array([1.0])),
        input_example=table,
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )


set_model(Surroundings())
