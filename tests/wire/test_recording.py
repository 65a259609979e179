"""Recorded calls of all protocols: what is in their files, and that the same calls can be made again from them."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import mlflow.data.pandas_dataset
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
from pyarrow import flight

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.recording import evaluation_table
from tests.support import tensors, zoo
from tests.support.flight import exchange
from tests.support.servers import Caller, InProcess, serving_models
from tests.support.shared import made_once
from tests.support.typed import TypedCaller

IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
SPLIT = json.dumps({"dataframe_split": {"columns": IRIS, "data": ROWS}})
LABELS = '{"predictions": ["setosa", "virginica"]}'
EVERY: dict[str, Any] = {
    "boolean": False,
    "integer": -(2**31),
    "long": 2**63 - 1,
    "float": 0.1,
    "double": -5e-324,
    "string": "\u00e9\n\u2028",
    "binary": "AAH/",
    "datetime": "2024-01-02T03:04:05.678901Z",
}


@contextlib.contextmanager
def recording(models: list[ModelConfig], folder: Path, **settings: Any) -> Iterator[InProcess]:
    """Runs a server that records all calls."""
    options = {"record": folder, "record_share": 1.0, "http_port": 0, **settings}
    with serving_models([(model, None) for model in models], **options) as running:
        yield running


@pytest.fixture(scope="module")
def zoo_models(tmp_path_factory) -> list[ModelConfig]:
    names = ["every_column", "optional", "params", "tensor", "tensors", "structures"]
    names += ["rows_numbers", "rows_every_column", "hint_dict"]
    return [
        ModelConfig(
            uri=str(made_once(tmp_path_factory, f"zoo_{name}", partial(zoo.save, name))), name=name, endpoint=True
        )
        for name in names
    ]


@pytest.fixture
def iris(iris_path) -> ModelConfig:
    return ModelConfig(uri=str(iris_path), name="iris", version="7", endpoint=True)


def test_every_way_in_is_recorded(iris, tmp_path):
    """JSON, CSV, streams, typed calls, batches, tensors and tables, over gRPC and HTTP, each leave a row whose output is
    the answer to the same rows as JSON."""
    frame = pd.DataFrame(ROWS, columns=IRIS)
    record = dict(zip(IRIS, ROWS[0], strict=True))
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [2, 1], "data": frame[name].tolist()} for name in IRIS
    ]  # fmt: skip
    with recording([iris], tmp_path) as server, Caller(server.address) as call:
        typed, oip = TypedCaller(call.channel), tensors.TensorCaller(call.channel)
        assert call(SPLIT) == LABELS
        call(frame.to_csv(index=False), mlflow_content_type="text/csv")
        typed("iris_predict", record)
        typed.many("iris_predict_many", [typed.input("iris_predict", record)])
        typed("iris_predict_batch", {name: frame[name].tolist() for name in IRIS})
        oip.infer(tensors.request("iris", *((name, "FP64", frame[name].tolist()) for name in IRIS)))
        with flight.connect(f"grpc://{server.address}") as client:
            exchange(client, "iris", pa.Table.from_pandas(frame, preserve_index=False))
        for path, body, content_type in (
            ("/invocations", SPLIT.encode(), "application/json"),
            ("/invocations", frame.to_parquet(), "application/vnd.apache.parquet"),
            ("/v2/models/iris/infer", json.dumps({"inputs": inputs}).encode(), "application/json"),
        ):
            answer = requests.post(server.url + path, data=body, headers={"content-type": content_type}, timeout=60)
            assert answer.status_code == 200, answer.text
    files = list(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".parquet"]
    assert files[0].stat().st_mode & 0o777 == 0o600
    calls: Any = pd.read_parquet(tmp_path)
    assert calls["method"].tolist() == [
        "/MLflow/predict",
        "/MLflow/predict",
        "/model_grpc_service.ModelgRPCService/iris_predict",
        "/model_grpc_service.ModelgRPCService/iris_predict_many",
        "/model_grpc_service.ModelgRPCService/iris_predict_batch",
        "/inference.GRPCInferenceService/ModelInfer",
        "/arrow.flight.protocol.FlightService/DoExchange",
        "POST /invocations",
        "POST /invocations",
        "POST /v2/models/iris/infer",
    ]
    assert set(calls["model"]) == {"iris"}
    assert set(calls["version"]) == {"7"}
    assert set(calls["status"]) == {"OK"}
    assert calls["error"].isna().all()
    lone = '{"predictions": ["setosa"]}'
    assert calls["output"].tolist() == [lone if rows == 1 else LABELS for rows in calls["rows"]]
    assert calls["rows"].tolist() == [2, 2, 1, 1, 2, 2, 2, 2, 2, 2]
    assert calls["input"][0] == calls["input"][7] == SPLIT
    assert calls["content_type"].tolist() == ["application/json", "text/csv", *["application/json"] * 8]
    assert (calls["duration_ms"] >= calls["model_ms"]).all()
    assert (calls["model_ms"] > 0).all()
    assert calls["request_id"].nunique() == len(calls)
    assert calls["started_at"].is_monotonic_increasing


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("every_column_predict", EVERY),
    ("rows_every_column_predict_batch", {name: [value, value] for name, value in EVERY.items()}),
    ("optional_predict", {"need": 1.5}),
    ("optional_predict", {"need": 1.5, **{f"may_{name}": value for name, value in EVERY.items()}}),
    ("params_predict", {"a": 1.0, "params": {"weights": {"values": [1.5]}, "top_k": 0}}),
    ("tensor_predict", {"value": {"data": [1.5, -2.25], "shape": [2]}}),
    ("tensors_predict", {"x": {"data": [1, 2]}, "mask": 3}),
    (
        "structures_predict",
        {"numbers": [], "person": {"age": 0, "name": "a"}, "counts": {"k": 0}, "anything": [0, None]},
    ),
    ("rows_numbers_predict_batch", {"a": [1, -(2**63)], "b": ["NaN", "Infinity"]}),
    ("hint_dict_predict", {"value": {"k": 3}}),
]


def test_recorded_inputs_are_the_inputs_of_the_model(zoo_models, tmp_path):
    """A recorded typed call, sent again as JSON, reaches the model with the same types and values, which it returns."""
    with recording(zoo_models, tmp_path) as server, Caller(server.address) as call:
        typed = TypedCaller(call.channel)
        for method, fields in CALLS:
            typed(method, fields)
        infer = tensors.request("rows_numbers", ("a", "INT64", [2**53 + 1]), ("b", "FP64", [-0.0]))
        tensors.TensorCaller(call.channel).infer(infer)
    calls: Any = pd.read_parquet(tmp_path)
    assert len(calls) == len(CALLS) + 1
    with serving_models([(model, None) for model in zoo_models]) as server, Caller(server.address) as call:
        for recorded in calls.itertuples():
            assert call(recorded.input, mlflow_model=recorded.model) == recorded.output, recorded.method


def test_errors_are_recorded_without_values(iris, tmp_path):
    """A refused call leaves its input, status and error; a call for no model leaves nothing."""
    with recording([iris], tmp_path) as server, Caller(server.address) as call:
        bad = json.dumps({"dataframe_split": {"columns": IRIS, "data": [["private", 1, 2, 3]]}})
        assert call.outcome(bad)[0] == "INVALID_ARGUMENT"
        assert call.outcome(SPLIT, mlflow_model="nobody")[0] == "NOT_FOUND"
    calls: Any = pd.read_parquet(tmp_path)
    (recorded,) = calls.itertuples()
    assert (recorded.status, recorded.input) == ("INVALID_ARGUMENT", bad)
    assert pd.isna(recorded.output)
    assert recorded.error
    assert "private" not in recorded.error


def test_a_share_of_the_calls_is_recorded(iris, tmp_path):
    """With a share of a quarter, about a quarter of many calls is recorded, and metrics count those in files."""
    with recording([iris], tmp_path, record_share=0.25) as server, Caller(server.address) as call:
        for _ in range(400):
            call(SPLIT)
        recorder = server.server.host._recorder
        assert recorder is not None
        server.run(recorder.close)
        metrics = requests.get(f"{server.url}/metrics", timeout=30).text
    count = len(pd.read_parquet(tmp_path))
    assert 50 <= count <= 150
    assert f'mlflow_grpc_recorded_calls_total{{result="written"}} {count}\n' in metrics
    assert 'mlflow_grpc_recorded_calls_total{result="dropped"} 0\n' in metrics


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")
def test_files_are_an_evaluation_data_set(iris, tmp_path, monkeypatch):
    """MLflow evaluates recorded rows against labels that are known later, and the model's answers as they were."""
    with recording([iris], tmp_path) as server, Caller(server.address) as call:
        call(SPLIT)
        call(pd.DataFrame(ROWS[:1], columns=IRIS).to_csv(index=False), mlflow_content_type="text/csv")
        call.outcome("{}")
    table = evaluation_table(tmp_path)
    assert table[IRIS].to_numpy().tolist() == [*ROWS, ROWS[0]]
    assert table["prediction"].tolist() == ["setosa", "virginica", "setosa"]
    assert set(table["version"]) == {"7"}
    table["label"] = ["setosa", "setosa", "setosa"]
    columns = [*IRIS, "prediction", "label"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    data = mlflow.data.pandas_dataset.from_pandas(table[columns], predictions="prediction", targets="label")
    with mlflow.start_run():
        evaluated = mlflow.models.evaluate(
            data=data, model_type="classifier", evaluator_config={"log_explainer": False}
        )
    assert np.isclose(evaluated.metrics["accuracy_score"], 2 / 3)
