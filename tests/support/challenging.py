"""Models that answer a number, some of them slowly, with an error or never."""

import time
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema


class Behaving(PythonModel):
    """Adds a number to the column a.

    Rows with a of 1,000 or more fail or hang if the model was made to; other rows are always answered.
    """

    def __init__(
        self, plus: float, *, sleep_s: float = 0.0, compute_s: float = 0.0, fails: bool = False, hangs: bool = False
    ) -> None:
        self.plus, self.sleep_s, self.compute_s, self.fails, self.hangs = plus, sleep_s, compute_s, fails, hangs

    def predict(self, context, model_input, params=None):
        is_special = bool((model_input["a"] >= 1000).any())
        if self.fails and is_special:
            raise ValueError("it fails")
        while self.hangs and is_special:
            time.sleep(0.05)
        time.sleep(self.sleep_s)
        end = time.thread_time() + self.compute_s
        while time.thread_time() < end:
            pass
        return model_input["a"].to_numpy() + self.plus


def save(path: Path, plus: float, *, column: str = "a", **behavior: Any) -> str:
    """Saves a model, whose column may have another name, and returns its path."""
    signature = ModelSignature(Schema([ColSpec("double", column)]), Schema([ColSpec("double")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            path, python_model=Behaving(plus, **behavior), signature=signature, pip_requirements=["mlflow"]
        )
    return str(path)


def expected(path: str, *values: float) -> list[float]:
    """Returns what MLflow predicts with a saved model."""
    predictions = mlflow.pyfunc.load_model(path).predict(pd.DataFrame({"a": values}))
    return [float(value) for value in np.asarray(predictions)]
