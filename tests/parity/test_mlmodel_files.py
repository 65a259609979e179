"""Arbitrary content in MLmodel files: MLflow decides if a model is served, and no file affects other models."""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from mlflow.pyfunc.model import PythonModel
from mlflow_grpc_client import Client, PredictError
from sklearn.linear_model import LinearRegression

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract import messages
from mlflow_grpc.engine import loading
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from tests.parity.conftest import oracle_of
from tests.support import versions
from tests.support.depth import sample
from tests.support.servers import Caller, InProcess, serving_models

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 1.0, 2.0]})
PAYLOAD = json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0]]}})
VECTOR = '[{"type": "sparkml_vector", "name": "features", "required": true}]'
OF_1 = '[{"name": "a", "type": "double"}, {"name": "b", "type": "double"}]'
"""A schema as MLflow 1.x wrote it, without `required`."""


def only(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[str, Any]) -> None:
        for key in set(file) - set(keys):
            del file[key]

    return change


def assigning(key: str | int, value: Any, *within: str) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[Any, Any]) -> None:
        for step in within:
            file = file[step]
        file[key] = value

    return change


def of_mlflow_0(file: dict[str, Any]) -> None:
    only("flavors", "run_id")(file)
    flavor = file["flavors"]["python_function"]
    only("loader_module", "model_path", "python_version")(flavor)


def of_mlflow_1(file: dict[str, Any]) -> None:
    only("flavors", "run_id", "signature", "artifact_path")(file)
    file.update(utc_time_created="2020-06-26 18:00:56.056567", signature={"inputs": OF_1, "outputs": OF_1[:32] + "]"})
    file["flavors"]["python_function"]["env"] = "conda.yaml"


PYFUNC = ("flavors", "python_function")
CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "mlflow 0.x": of_mlflow_0,
    "mlflow 1.x": of_mlflow_1,
    "no signature": only("flavors"),
    "a key that is a number": assigning(5, 6),
    **{
        f"{key} {value!r:.20}": assigning(key, value)
        for key in ("run_id", "model_id", "mlflow_version", "metadata", "utc_time_created", "unknown")
        for value in (None, 7, ["a", 1], "a\ud800", {"k": 1, 2: [3]})
    },
    "deterministic no boolean": assigning("metadata", {"deterministic": "yes"}),
    "signature null": assigning("signature", None),
    "inputs null": assigning("inputs", None, "signature"),
    "outputs null": assigning("outputs", None, "signature"),
    "params null": assigning("params", None, "signature"),
    "params nan": assigning("params", '[{"name": "t", "type": "double", "default": NaN, "shape": null}]', "signature"),
    "labels that are numbers": assigning("outputs", '[{"name": 1, "type": "double"}]', "signature"),
    "a vector among the outputs": assigning("outputs", VECTOR, "signature"),
    "a lone surrogate": assigning("outputs", '[{"name": "a\\ud800", "type": "double"}]', "signature"),
    "a flavor that is a number": assigning(5, {"x": 1}, "flavors"),
    "a flavor that is null": assigning("other", None, "flavors"),
    "a flavor that is a list": assigning("other", [1], "flavors"),
    "a flavor with a lone surrogate": assigning("a\ud800", {}, "flavors"),
    "code that no file can be called": assigning("code", "a\ud800", *PYFUNC),
    "python version null": assigning("python_version", None, *PYFUNC),
    "env missing": lambda file: file["flavors"]["python_function"].pop("env"),
    "config a text": assigning("config", "text", *PYFUNC),
    "streamable a text": assigning("streamable", "no", *PYFUNC),
}
FILES: dict[str, Callable[[Path], Any]] = {
    "an example that is not UTF-8": lambda path: (path / "serving_input_example.json").write_bytes(b"\xff{"),
    "an example that is no payload": lambda path: (path / "serving_input_example.json").write_text("[1]"),
    "an example of no table": lambda path: (path / "serving_input_example.json").write_text('{"inputs": 1}'),
    "an example without a payload": lambda path: (path / "serving_input_example.json").unlink(),
}


NAMES = sample([*CHANGES, *FILES])


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    """A model with each of these files; the last one, `good`, has the file that MLflow wrote."""
    folder = tmp_path_factory.mktemp("files")
    mlflow.sklearn.save_model(
        LinearRegression().fit(FRAME, [1, 2, 3]),
        folder / "good",
        serialization_format=versions.SKLEARN_FORMAT,
        signature=infer_signature(FRAME, np.array([1.0])),
        input_example=FRAME.head(1),
        pip_requirements=["scikit-learn"],
    )
    written = yaml.safe_load((folder / "good" / "MLmodel").read_text())
    folders = {}
    for index, name in enumerate(NAMES):
        path = folders[name] = folder / f"m{index}"
        path.mkdir()
        for file in (folder / "good").iterdir():
            if file.is_file():
                (path / file.name).write_bytes(file.read_bytes())
        content = copy.deepcopy(written)
        if name in CHANGES:
            CHANGES[name](content)
            (path / "MLmodel").write_text(yaml.dump(content))
        else:
            FILES[name](path)
    return {**folders, "good": folder / "good"}


@pytest.fixture(scope="module")
def served(paths) -> Iterator[tuple[InProcess, dict[str, str]]]:
    """One server with all models; those that MLflow cannot load have the reason. Also returns their names."""
    models, names = [], {}
    for index, (name, path) in enumerate(paths.items()):
        config = ModelConfig(uri=str(path), name=f"m{index}", endpoint=True)
        try:
            loaded: Any = loading.load(config, Settings(model_uri="m"))
        except StartError as error:
            loaded = str(error)
        models.append((config, loaded))
        names[name] = f"m{index}"
    with serving_models(models) as running:
        yield running, names


@pytest.mark.parametrize("name", [*NAMES, "good"])
def test_models_that_mlflow_serves_are_served(served, paths, name, monkeypatch):
    """A model that MLflow serves has MLflow's answer, and an entry in the list of models."""
    running, names = served
    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow adds the model's code to the path.
    try:
        status, body = oracle_of(paths[name])(PAYLOAD, "application/json")
    except Exception:
        status, body = 0, ""
    with Caller(running.address) as call:
        outcome = call.outcome(PAYLOAD, mlflow_model=names[name])
        if status == 200:
            assert outcome == ("OK", body)
        rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
        request = protos.message_named("mlflow_grpc.v1.GetModelRequest")(name=names[name])
        model = protos.message_named("mlflow_grpc.v1.Model").FromString(rpc(request.SerializeToString(), timeout=30))
        assert (model.State.Name(model.state) == "READY") >= (status == 200)


def test_all_are_listed_and_the_good_one_is_typed(served):
    """The client reads the list with the content of all files."""
    running, names = served
    with Client(running.address) as client:
        assert [model.name for model in client.models()] == list(names.values())
        assert client.predict(json.loads(PAYLOAD), model=names["good"]) == [
            client.model(names["good"]).predict(a=1.0, b=2.0)
        ]


def test_a_model_whose_messages_cannot_be_made(paths, monkeypatch, caplog):
    """A model whose messages cannot be made has no typed RPCs, for any exception. The log says so, and other models
    have theirs."""
    add = messages.FileMaker.add

    def raises(maker, name, *args, **more):
        if name == "odd":
            raise ZeroDivisionError("by zero")
        return add(maker, name, *args, **more)

    monkeypatch.setattr(messages.FileMaker, "add", raises)
    models = [(ModelConfig(uri=str(paths["good"]), name=name, endpoint=True), None) for name in ("odd", "good")]
    with serving_models(models) as running, Client(running.address) as client:
        assert client.model("good").predict(a=1.0, b=2.0) == client.predict(json.loads(PAYLOAD), model="odd")[0]
        with pytest.raises(PredictError, match="no typed RPC"):
            client.model("odd").predict(a=1.0, b=2.0)
    assert "odd: no typed RPCs: its messages cannot be made: ZeroDivisionError: by zero" in caplog.text


class Sum(PythonModel):
    """Sums the elements of a Spark ML vector."""

    def predict(self, context, model_input, params=None):
        return [float(sum(vector)) for vector in model_input["features"]]


def test_a_spark_ml_vector_only_prevents_typed_rpcs(tmp_path, paths, caplog):
    """The model is served and described. The log has the reason why it has no typed RPCs, and other models have theirs."""
    signature = infer_signature(pd.DataFrame({"features": [[0.5, 1.5]]}), np.array([1.0]))
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Sum(), signature=signature, pip_requirements=["mlflow"])
    file = tmp_path / "m" / "MLmodel"
    content = yaml.safe_load(file.read_text())
    content["signature"]["inputs"] = VECTOR
    file.write_text(yaml.dump(content))
    payload = json.dumps({"dataframe_records": [{"features": [0.5, 1.5]}]})
    models = [
        (ModelConfig(uri=str(path), name=name, endpoint=True), None)
        for name, path in (("spark", tmp_path / "m"), ("good", paths["good"]))
    ]
    with serving_models(models) as running, Client(running.address) as client, Caller(running.address) as call:
        assert call.outcome(payload, mlflow_model="spark") == (
            "OK",
            oracle_of(tmp_path / "m")(payload, "application/json")[1],
        )
        spark, good = client.models()
        assert not [path for path in spark.rpcs if "ModelgRPCService" in path]
        assert [path for path in good.rpcs if path.endswith("/good_predict")]
    assert "spark: no typed RPCs: its signature has the type sparkml_vector" in caplog.text
