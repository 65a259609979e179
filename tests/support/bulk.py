"""Models and fleets for jobs of many rows: a classifier that takes nulls, outputs of several types, calls at a time."""

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from signal import Signals
from threading import Lock
from typing import Self, TypeVar

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array
from sklearn.ensemble import HistGradientBoostingClassifier

from tests.support.servers import Process, free_port, ready_address, start_server

T = TypeVar("T")

COLUMNS = ["a", "b", "c", "d"]

BATCH_CALL = r'_predict_batch".*"status":"OK"'
"""Pattern of the log line of an answered call."""


def features(ids: "pd.Series[int]") -> pd.DataFrame:
    """Rows made from their numbers: a null in one of seven rows of a column."""
    columns = {name: ((ids * (index + 3)) % 1000 / 1000).where(ids % 7 != index) for index, name in enumerate(COLUMNS)}
    return pd.DataFrame(columns)


def save_models(folder: Path) -> Path:
    """Saves the models, and a configuration that serves them all; returns its path."""
    doubles = Schema([ColSpec("double", name, required=False) for name in COLUMNS])
    frame = features(pd.Series(range(2000)))
    labels = (frame.fillna(0).sum(axis=1) * 2).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Those of MLflow and scikit-learn about each other.
        mlflow.sklearn.save_model(
            HistGradientBoostingClassifier(max_iter=5).fit(frame, labels),
            folder / "trees",
            signature=ModelSignature(doubles, Schema([ColSpec("long")])),
            serialization_format="cloudpickle",
            pip_requirements=[],
        )
        for name, (model, signature) in _python_models(doubles).items():
            mlflow.pyfunc.save_model(str(folder / name), python_model=model, signature=signature, pip_requirements=[])
    names = sorted(path.name for path in folder.iterdir())
    config = {"models": [{"name": name, "uri": str(folder / name)} for name in names]}
    (folder / "models.yaml").write_text(yaml.safe_dump(config))
    return folder / "models.yaml"


def _python_models(doubles: Schema) -> dict[str, tuple[PythonModel, ModelSignature]]:
    # Classes within a function are pickled with their code, so that any process can load them.
    class Several(PythonModel):
        def predict(self, context, model_input, params=None):
            values = model_input["a"]
            return pd.DataFrame(
                {
                    "double": values * 2,
                    "long": np.arange(len(values)) + 2**40,
                    "text": [None if np.isnan(value) else f"{value:g}" for value in values],
                    "flag": values > 0.5,
                    "list": [[float(index), 0.5] for index in range(len(values))],
                }
            )

    class Running(PythonModel):
        """Answers with the number of calls that run in it."""

        def load_context(self, context):
            self.lock, self.count = Lock(), 0

        def predict(self, context, model_input, params=None):
            with self.lock:
                self.count += 1
            time.sleep(0.02)  # The work of a model.
            with self.lock:
                running = self.count
                self.count -= 1
            return np.full(len(model_input), running)

    class Sums(PythonModel):
        def predict(self, context, model_input, params=None):
            return np.asarray(model_input).sum(axis=-1)

    class Odd(PythonModel):
        def predict(self, context, model_input, params=None):
            return [1.0]

    several = Schema(
        [
            ColSpec("double", "double"),
            ColSpec("long", "long"),
            ColSpec("string", "text", required=False),
            ColSpec("boolean", "flag"),
            ColSpec(Array(DataType.double), "list"),
        ]
    )
    tensor = Schema([TensorSpec(np.dtype("float64"), (-1, 3))])
    return {
        "several": (Several(), ModelSignature(doubles, several)),
        "running": (Running(), ModelSignature(doubles, Schema([ColSpec("long")]))),
        "sums": (Sums(), ModelSignature(tensor, Schema([TensorSpec(np.dtype("float64"), (-1,))]))),
        "odd": (Odd(), ModelSignature(doubles, Schema([ColSpec("double")]))),
    }


class Fleet:
    """Servers of the models, each on a port of its own that it keeps when it restarts."""

    def __init__(self, config: Path, count: int, *flags: str) -> None:
        self._flags = ["--config", str(config), *flags]
        self._ports = [free_port() for _ in range(count)]
        self._stack = ExitStack()
        self.servers: list[Process] = []

    def __enter__(self) -> Self:
        self.servers = [self._start(port) for port in self._ports]
        for server in self.servers:
            ready_address(server)
        return self

    def _start(self, port: int) -> Process:
        # A new process, because MLflow imports Ray or Spark where they are installed, which start threads.
        return self._stack.enter_context(start_server(*self._flags, "--port", str(port), fresh=True))

    @property
    def address(self) -> str:
        return ",".join(f"grpc://127.0.0.1:{port}" for port in self._ports)

    def restart_during(self, job: "Future[object]", number: Signals, *, after_calls: int) -> None:
        """Ends the first server by a signal once it has answered some calls, and starts it again."""
        self.servers[0].wait_for(BATCH_CALL, times=after_calls)
        assert not job.done()
        self.servers[0].signal(number)
        self.servers[0].wait()
        assert not job.done()
        self.servers[0] = self._start(self._ports[0])
        ready_address(self.servers[0])

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def lines(server: Process, text: str) -> Iterator[str]:
    """The log lines of a server with a text."""
    return (line for line in (*server.stdout, *server.stderr) if text in line)


def in_background(action: Callable[[], T]) -> "Future[T]":
    """Runs a job of Spark or Ray in a thread."""
    pool = ThreadPoolExecutor(1)
    job = pool.submit(action)
    pool.shutdown(wait=False)
    return job
