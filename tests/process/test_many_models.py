"""A server process with a configuration file: MLflow models and MLModel packages, and models that fail."""

import json
import os
import runpy
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from tests.process.conftest import payload
from tests.support.servers import ROOT, Caller, Process, ready_address, start_server

NEWER = "tests.support.newer_models."
RECORD = {"name": "a", "born": "2020-02-29", "size": "large"}
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the example model as an MLflow model, iris, and as an MLModel package, iris_model."""
    path = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models" / "iris_model" / "iris_model", path / "iris_model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Warnings of scikit-learn and MLflow about each other.
        runpy.run_path(str(ROOT / "models" / "train_iris.py"))["main"](path / "iris", path / "iris_model")
    return path


@pytest.fixture(scope="module")
def classes(folder: Path) -> dict[str, str]:
    """An environment in which the packages can be imported."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests/support/older", folder)))}


@pytest.fixture
def serve(tmp_path: Path, classes: dict[str, str]) -> Iterator[Callable[..., Process]]:
    """Returns a function that starts a server with a configuration."""
    with ExitStack() as stack:

        def launch(configuration: dict[str, Any], *flags: str) -> Process:
            path = tmp_path / "models.yaml"
            path.write_text(yaml.safe_dump(configuration))
            return stack.enter_context(start_server("--config", str(path), *flags, env=classes))

        yield launch


def test_five_models_of_mixed_kinds(serve, model, folder):
    """Each model is called by its name and gives its own answer."""
    iris = folder / "iris"
    process = serve(
        {
            "models": [
                {"uri": str(iris), "name": "iris", "version": "3"},
                {"uri": str(model), "name": "stepper", "default": True, "batching": "off"},
                {"class_path": "iris_model.iris_predict.IrisModel"},
                {"class_path": "older_models.Iris", "configuration": {"seen": "then"}},
                {
                    "class_path": f"{NEWER}Echo",
                    "name": "decorated",
                    "configuration": {"suffix": "!"},
                    "decorators": [
                        {"class_path": f"{NEWER}Suffix", "configuration": {"suffix": "?"}},
                        {"class_path": f"{NEWER}Gate"},
                    ],
                },
            ]
        }
    )
    with Caller(ready_address(process)) as call:

        def ask(name: str, content: Any) -> Any:
            return json.loads(call(json.dumps(content), mlflow_model=name))

        rows = pd.read_json(iris / "input_example.json", orient="split")
        table = {"dataframe_split": rows.to_dict(orient="split")}
        expected = mlflow.pyfunc.load_model(str(iris)).predict(rows)
        assert ask("iris", table) == {"predictions": expected.tolist()}
        assert json.loads(call(payload("hello"))) == {"predictions": ["hello"]}
        assert ask("iris_model", FLOWER) == {"species": "setosa"}
        assert ask("iris_model", {"instances": [FLOWER] * 2}) == {"predictions": [{"species": "setosa"}] * 2}
        assert ask("older_iris", {"sepal_length": 5.1, "petal": {"length": 1.4}}) == {
            "species": "setosa",
            "seen": "then",
        }
        assert ask("decorated", RECORD)["name"] == "a!?"
        assert call.outcome(json.dumps({**RECORD, "size": "small"}), mlflow_model="decorated") == (
            "INVALID_ARGUMENT", "The record does not fit the model's schema: Too small.",
        )  # fmt: skip
        names = "iris/3, stepper, iris_model/1.0.0, older_iris/0.1, decorated/1.2.0"
        assert (call.outcome("x", mlflow_model="nope")[1] or "").endswith(f"There are: {names}.")
    line = next(line for line in process.stdout if "ready: models" in line)
    for excerpt in (
        names.partition(", ")[0],
        "decorated/1.2.0 (MLModel, ml_base)",
        "model_grpc_service.ModelgRPCService",
    ):
        assert excerpt in line


def test_the_file_of_rest_model_service(serve):
    """A rest_config.yaml is served unchanged: a model without an endpoint is loaded but cannot be called, logging
    follows the file, and an obsolete key is a log line."""
    process = serve(
        {
            "service_title": "Iris Service",
            "version": "0.1.0",
            "models": [
                {
                    "qualified_name": "iris_model",
                    "class_path": "iris_model.iris_predict.IrisModel",
                    "create_endpoint": True,
                },
                {"class_path": f"{NEWER}Echo", "create_endpoint": False, "configuration": None, "decorators": None},
            ],
            "logging": {
                "version": 1,
                "formatters": {"plain": {"format": "LOGGED %(name)s %(message)s"}},
                "handlers": {
                    "out": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}
                },
                "loggers": {"mlflow_grpc.call": {"handlers": ["out"], "level": "INFO"}},
            },
        }
    )
    process.wait_for(r"models\[0\].qualified_name is obsolete since rest-model-service 0.5.0")
    with Caller(ready_address(process)) as call:
        assert call(json.dumps(FLOWER)) == '{"species": "setosa"}'
        assert call.outcome(json.dumps(RECORD), mlflow_model="echo")[0] == "NOT_FOUND"
    process.wait_for("LOGGED mlflow_grpc.call")


def test_a_failed_model_stops_the_start(serve):
    """A model that cannot be loaded ends the server with a line that names the model and the reason."""
    process = serve({"models": [{"class_path": f"{NEWER}Echo"}, {"class_path": f"{NEWER}Breaks"}]})
    assert process.wait() == 2
    (line,) = process.errors
    assert f"mlmodel:{NEWER}Breaks" in line
    assert "its constructor raised RuntimeError: no weights at all" in line
    assert "Traceback" not in process.output


def test_a_failed_model_can_be_skipped(serve, tmp_path):
    """The other models are served; if there is none, the start fails."""
    broken = {"class_path": f"{NEWER}Breaks", "name": "broken", "on_error": "skip"}
    process = serve({"models": [{"class_path": f"{NEWER}Echo"}, broken]})
    with Caller(ready_address(process)) as call:
        assert json.loads(call(json.dumps(RECORD), mlflow_model="echo"))["name"] == "a"
        assert call.outcome("{}", mlflow_model="broken")[0] == "FAILED_PRECONDITION"
    process.wait_for("broken from .* is left out: .*constructor raised")
    process = serve({"models": [broken]})
    assert process.wait() == 2
    assert "none of the models could be loaded" in process.output


def test_an_invalid_configuration_is_refused(serve):
    """One line has the path in the file, before anything is loaded."""
    process = serve({"models": [{"uri": "a", "batching": "maybe"}]})
    assert process.wait() == 2
    assert "models[0].batching: input should be 'auto', 'on' or 'off'" in process.output


def test_an_mlmodel_class_at_model_path(classes):
    """A single MLModel class is served without a configuration file."""
    environment = {**classes, "MODEL_PATH": "mlmodel:iris_model.iris_predict.IrisModel"}
    with start_server(env=environment) as process, Caller(ready_address(process)) as call:
        assert call(json.dumps(FLOWER)) == '{"species": "setosa"}'
    with start_server("-m", f"mlmodel:{NEWER}NoModel", env=classes) as process:
        assert process.wait() == 2
        assert any(f"Error: {NEWER}NoModel does not derive from ml_base.MLModel" in error for error in process.errors)


def test_workers_with_a_configuration(serve, model):
    """Each worker serves all models of a configuration file."""
    process = serve({"models": [{"uri": str(model), "name": "a"}, {"uri": str(model), "name": "b"}]}, "-w", "2")
    address = ready_address(process)
    for name in "ab":
        with Caller(address) as call:
            assert call(payload("x"), mlflow_model=name) == '{"predictions": ["x"]}'
