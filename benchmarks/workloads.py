"""The workloads: models that are trained at run time, and payloads for them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

AS_JSON = "as fast as JSON"


@dataclass(frozen=True)
class Workload:
    """One model and its payloads."""

    name: str
    estimator: Callable[[], BaseEstimator]
    data: Callable[[], tuple[pd.DataFrame, pd.Series]]
    rows: int
    """Number of rows in a call."""
    in_flight: tuple[int, ...]
    """Numbers of calls in flight."""
    floors: dict[int, float]
    """Minimum throughput relative to MLflow's server, by calls in flight."""
    typed_floor: str
    """Minimum throughput of typed calls, as text."""
    http_floors: dict[int, float]
    """Minimum throughput over HTTP relative to MLflow's server, by calls in flight."""
    open_port_floor: float | None = None
    """Minimum throughput over gRPC of a server whose HTTP port is open, relative to one without it; None to not measure
    it."""

    def save(self, path: Path) -> None:
        """Trains the model and saves it with signature and input example."""
        features, target = self.data()
        model = self.estimator().fit(features, target)
        mlflow.sklearn.save_model(
            model,
            path,
            signature=mlflow.models.infer_signature(features, model.predict(features)),
            input_example=features.head(5),
            serialization_format="pickle",
            pip_requirements=["scikit-learn"],  # Otherwise MLflow starts a process to find them.
        )

    def payloads(self, count: int) -> list[str]:
        """Makes payloads with different rows."""
        features, _ = self.data()
        dice = np.random.default_rng(1)
        chosen = [features.iloc[dice.choice(len(features), self.rows)] for _ in range(count)]
        return [
            json.dumps({"dataframe_split": {"columns": list(features.columns), "data": rows.to_numpy().tolist()}})
            for rows in chosen
        ]


def _iris() -> tuple[pd.DataFrame, pd.Series]:
    iris = load_iris(as_frame=True)
    return iris.data, iris.target


def _wide() -> tuple[pd.DataFrame, pd.Series]:
    numbers = np.random.default_rng(0).normal(size=(10_000, 20))
    return pd.DataFrame(numbers, columns=[f"f{number}" for number in range(20)]), pd.Series(numbers.sum(axis=1) > 0)


WORKLOADS = (
    Workload(
        "LogisticRegression, 1 row",
        lambda: LogisticRegression(max_iter=1000),
        _iris,
        rows=1,
        in_flight=(1, 32, 256),
        floors={1: 2.0, 32: 18.0, 256: 20.0},
        typed_floor=AS_JSON,
        http_floors={1: 2.0, 32: 8.0, 256: 8.0},
        open_port_floor=0.97,
    ),
    Workload(
        "RandomForest(100), 1 row",
        lambda: RandomForestClassifier(100, random_state=0),
        _iris,
        rows=1,
        in_flight=(1, 32, 256),
        floors={1: 1.1, 32: 22.0, 256: 22.0},
        typed_floor=AS_JSON,
        http_floors={1: 1.0, 32: 8.0, 256: 8.0},
    ),
    Workload(
        "LogisticRegression, 10,000 rows of 20",
        lambda: LogisticRegression(max_iter=1000),
        _wide,
        rows=10_000,
        in_flight=(1,),
        floors={1: 5.0},
        typed_floor="15 times MLflow",
        http_floors={1: 6.0},
    ),
)
