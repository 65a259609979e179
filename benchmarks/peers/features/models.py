"""The models of the trials, their payloads and the log in which they write down what they predict."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from benchmarks.peers.contenders import PROGRAMS

FACTOR, SECOND_FACTOR = 2.0, 3.0
SECOND = "second"
"""The name of the second model."""
POLL_S = 0.02


def save(path: Path, factor: float) -> None:
    """Saves the model of `programs/probe_model.py`, which multiplies by a factor."""
    rows = pd.DataFrame({"x": [1.0], "wait_s": [0.0]})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*An input example was not provided")
        mlflow.pyfunc.save_model(
            str(path),
            python_model=str(PROGRAMS / "probe_model.py"),
            model_config={"factor": factor},
            signature=mlflow.models.infer_signature(rows, np.array([factor])),
            pip_requirements=["mlflow"],
        )


def payload(*values: float, wait_s: float = 0.0) -> str:
    """Returns rows in MLflow's form dataframe_split."""
    data = [[value, wait_s] for value in values]
    return json.dumps({"dataframe_split": {"columns": ["x", "wait_s"], "data": data}})


class ProbeLog:
    """What the models of one server have predicted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def predicted(self, event: str = "start") -> list[list[float]]:
        """Returns the values of column `x` of all predictions that have started, or ended with `event` "end"."""
        lines = [json.loads(line) for line in self.path.read_text(encoding="ascii").splitlines()]
        return [line["values"] for line in lines if line["event"] == event]

    def has_started(self, value: float) -> bool:
        """Whether a prediction with a value has started."""
        return any(value in values for values in self.predicted())


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Waits for a condition, and returns whether it came true within a time limit."""
    ends = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(POLL_S)
    return True
