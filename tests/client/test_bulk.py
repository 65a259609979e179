"""Steps of batch jobs: calls of limited size, and their repetition; `Predictor` without Ray, which it does not import."""

import subprocess
import sys
import threading

import grpc
import numpy as np
import pandas as pd
import pytest
from _mlflow_grpc_protocol.install_sources import CLIENT, install_argument
from mlflow_grpc_client import PredictError, Unavailable, _bulk
from mlflow_grpc_client._bulk import BulkModel, BulkOptions
from mlflow_grpc_client.errors import failure
from mlflow_grpc_client.ray_data import Predictor

from tests.support.servers import free_port, ready_address, start_server

FLOWERS = pd.DataFrame(
    {
        "sepal_length_cm": [5.1, 6.7, 5.1],
        "sepal_width_cm": [3.5, 3.0, 3.5],
        "petal_length_cm": [1.4, 5.2, 1.4],
        "petal_width_cm": [0.2, 2.3, 0.2],
    }
)
SPECIES = ["setosa", "virginica", "setosa"]


def species_of(columns):
    (species,) = columns.values()
    return list(species)


def test_rows_of_a_call(iris, attempts):
    """Rows are sent in calls of the size, and their answers are in the order of the rows."""
    with BulkModel(BulkOptions(iris.address, "iris", rows_per_call=2)) as served:
        assert species_of(served.predict(FLOWERS)) == SPECIES
        assert [len(column) for column in served.predict(FLOWERS[:0]).values()] == [0]
    assert [fields["rows"] for fields in attempts.fields if fields["method"].endswith("predict_batch")] == [2, 1]


@pytest.mark.parametrize("make", [lambda frame: frame, lambda frame: {name: frame[name].to_numpy() for name in frame}])
def test_batches(iris, make):
    """A DataFrame and a dict of arrays get a column of predictions, and keep columns that are not inputs."""
    batch = make(FLOWERS.assign(id=[7, 8, 9]))
    answer = Predictor(iris.address, "iris", output="species")(batch)
    assert type(answer) is type(batch)
    assert list(answer) == [*FLOWERS, "id", "species"]
    assert list(answer["species"]) == SPECIES


def test_batches_that_are_refused(iris):
    """A batch of another type, and one with a column of the output's name, are refused."""
    predictor = Predictor(iris.address, "iris")
    with pytest.raises(
        TypeError, match=r"a batch is a dict of arrays or a DataFrame, not ndarray: leave batch_format out"
    ):
        predictor(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="the batch already has a column 'prediction'"):
        predictor(FLOWERS.assign(prediction=0))


@pytest.mark.deep
def test_a_call_waits_for_a_server(iris, monkeypatch):
    """A call is repeated until a server is there, for a time."""
    monkeypatch.setattr(_bulk, "FIRST_PAUSE_S", 0.01)
    port = free_port()
    options = BulkOptions(f"127.0.0.1:{port}", "iris", client_options={"timeout_s": 5})
    with BulkModel(BulkOptions(options.address, "iris", retry_for_s=0)) as served, pytest.raises(Unavailable):
        served.predict(FLOWERS)
    failed, answers = threading.Event(), list[str]()
    with BulkModel(options) as served:
        contract = served._model.contract

        def observed():
            try:
                return contract()
            except Unavailable:
                failed.set()
                raise

        monkeypatch.setattr(served._model, "contract", observed)
        job = threading.Thread(target=lambda: answers.extend(species_of(served.predict(FLOWERS))))
        job.start()
        assert failed.wait(60)
        with start_server("--model-uri", str(iris.path), "--model-name", "iris", "--port", str(port)) as server:
            ready_address(server)
            job.join(60)
    assert answers == SPECIES


@pytest.mark.parametrize(
    ("code", "reason", "attempts"),
    [
        (grpc.StatusCode.UNAVAILABLE, "", 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_LIMIT_EXCEEDED", 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", 1),
        (grpc.StatusCode.INVALID_ARGUMENT, "", 1),
        (grpc.StatusCode.UNIMPLEMENTED, "", 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", 1),
    ],
)
def test_errors_that_pass(iris, monkeypatch, code, reason, attempts):
    """Calls to a server that has just started, or is overloaded, are repeated; others are not."""
    monkeypatch.setattr(_bulk, "FIRST_PAUSE_S", 0.01)
    errors = [failure(code, "no", reason=reason)]
    with BulkModel(BulkOptions(iris.address, "iris")) as served:
        predict, count = served._model.predict_columns, 0

        def failing(*arguments, **more):
            nonlocal count
            count += 1
            if errors:
                raise errors.pop()
            return predict(*arguments, **more)

        monkeypatch.setattr(served._model, "predict_columns", failing)
        if attempts == 1:
            with pytest.raises(PredictError, match="no"):
                served.predict(FLOWERS)
        else:
            assert species_of(served.predict(FLOWERS)) == SPECIES
    assert count == attempts


@pytest.mark.parametrize("options", [{"rows_per_call": 0}, {"retry_for_s": -1}, {"retry_for_s": float("nan")}])
def test_invalid_options(options):
    """An invalid number is refused with its name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Predictor("localhost:1", "iris", **options)


@pytest.mark.parametrize(
    ("module", "extra", "absent"), [("spark", "spark", "pyspark"), ("ray_data", "ray-data", "pandas")]
)
def test_a_missing_library(module, extra, absent):
    """Without the library of an engine, its module names the extra."""
    code = f"import sys; sys.modules[{absent!r}] = None; import mlflow_grpc_client.{module}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert f"needs {absent}: pip install {install_argument(CLIENT, extra)}" in done.stderr
