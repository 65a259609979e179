"""MLModel packages as MLflow models, and MLflow models as MLModels: both answer like their originals."""

import json
import runpy
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from ml_base import MLModel as Interface
from ml_base.utilities import ModelManager

from mlflow_grpc import mlmodel as bridges
from mlflow_grpc.config import Decorator, ModelConfig
from mlflow_grpc.engine.loading import load
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting import import_path
from mlflow_grpc.settings import Settings
from tests.support import zoo
from tests.support.servers import ROOT, post, start_mlflow_server

NEWER = "tests.support.newer_models."
FLOWERS = [
    {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2},
    {"sepal_length": 6.3, "sepal_width": 2.5, "petal_length": 5.0, "petal_width": 1.9},
]


def answer(config: ModelConfig, payload: Any) -> str:
    """Returns this server's answer to a payload."""
    loaded = load(config, Settings(model_uri="m"))
    request = loaded.codec.decode(json.dumps(payload), None)
    return loaded.codec.encode(loaded.model.predict(request.data, request.params), request)


def of_class(path: str) -> ModelConfig:
    return ModelConfig(class_path=path, endpoint=True)


def of_uri(path: Path, **more: Any) -> ModelConfig:
    return ModelConfig(uri=str(path), endpoint=True, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example model in both forms; the package can be imported."""
    path = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models" / "iris_model" / "iris_model", path / "iris_model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Warnings of scikit-learn and MLflow about each other.
        runpy.run_path(str(ROOT / "models" / "train_iris.py"))["main"](path / "iris", path / "iris_model")
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))


def test_a_package_as_an_mlflow_model(folder, tmp_path):
    """`mlflow models serve` and this server answer for the logged package as this server does for the package itself."""
    path = tmp_path / "model"
    bridges.save_model(
        "iris_model.iris_predict.IrisModel",
        path,
        pip_requirements=["ml-base", "scikit-learn", "skops"],
        code_paths=[str(folder / "iris_model")],
    )
    payloads = [
        {"dataframe_records": FLOWERS},
        {"instances": FLOWERS},
        {"inputs": pd.DataFrame(FLOWERS).to_dict("list")},
    ]
    process, url = start_mlflow_server(path)
    with process:
        for payload in payloads:
            expected = answer(of_class("iris_model.iris_predict.IrisModel"), payload)
            assert json.loads(expected) == {"predictions": [{"species": "setosa"}, {"species": "virginica"}]}
            assert post(url, json.dumps(payload)) == (200, expected)
            assert answer(of_uri(path), payload) == expected


@pytest.mark.parametrize(
    ("path", "records"),
    [
        (f"{NEWER}Echo", [{"name": "a", "born": "2020-02-29", "size": "large", "flag": True, "count": 2**53 + 1}]),
        (f"{NEWER}Echo", [{"name": "a", "born": "2020-02-29", "parts": [{"weight": 1.5, "tags": ["x"]}], "type": "k"}]),
        (f"{NEWER}OldStyle", [{"number": 3}, {"number": 4}]),
        ("older_models.Iris", [{"sepal_length": 5.1, "petal": {"length": 1.4}}]),
    ],
)
def test_records_survive_signature_and_frame(path, records, tmp_path):
    """A record stays the same through MLflow's signature and frame."""
    configuration = {"seen": "then"} if path.startswith("older") else None
    bridges.save_model(path, tmp_path / "model", configuration=configuration, pip_requirements=["ml-base"])
    config = ModelConfig(class_path=path, configuration=configuration, endpoint=True)
    payload = {"dataframe_records": records}
    assert json.loads(answer(of_uri(tmp_path / "model"), payload)) == json.loads(answer(config, payload))


def test_a_class_is_saved_without_a_warning_about_its_code(tmp_path):
    """MLflow does not advise on the type hints of a class that the user has not written."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bridges.save_model(f"{NEWER}Echo", tmp_path / "model", pip_requirements=["ml-base"])
    assert not [warning for warning in caught if "type hint" in str(warning.message).lower()]


def test_a_logged_class_requires_its_package(tmp_path, monkeypatch):
    """The distribution of the class is among the requirements; a class in no distribution needs explicit requirements."""
    monkeypatch.setattr(mlflow, "__version__", "3.13.0")
    assert bridges._package_of("sklearn.linear_model.Ridge") == [f"scikit-learn=={__import__('sklearn').__version__}"]
    with pytest.raises(ValueError, match="tests is in no installed package"):
        bridges.save_model(f"{NEWER}Echo", tmp_path / "model")


def test_an_mlflow_model_as_an_mlmodel(folder):
    """A service for the interface can host it, and each row's answer is MLflow's."""
    model = bridges.as_mlmodel(str(folder / "iris"), qualified_name="iris", version="3")
    assert isinstance(model, Interface)
    manager = ModelManager()
    manager.add_model(model)
    rows = pd.read_json(folder / "iris" / "input_example.json", orient="split")
    expected = mlflow.pyfunc.load_model(str(folder / "iris")).predict(rows)
    for row, species in zip(rows.to_dict("records"), expected, strict=True):
        output = manager.get_model("iris").predict(model.input_schema.model_validate(row))
        assert output.model_dump() == species
    with pytest.raises(ValueError, match="sepal_length_cm"):
        model.input_schema(sepal_length_cm="long", sepal_width_cm=1, petal_length_cm=1, petal_width_cm=1)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("numbers", {"a": 2**53 + 1, "b": 1.5}),
        ("every_column", {
            "boolean": True, "integer": 3, "long": 2**60, "float": 0.5, "double": 0.1, "string": "", "binary": "AAE=",
            "datetime": "2020-02-29T12:00:00",
        }),
        ("optional", {"need": 1.0}),
        ("optional", {"need": 1.0, "may_string": "x", "may_boolean": False, "may_integer": 0}),
        ("structures", {"numbers": [1.0, 2.5], "person": {"age": 0, "name": "a"}, "counts": {"k": 1}}),
    ],
)  # fmt: skip
def test_decorators_around_an_mlflow_model(zoo_path, name, record):
    """A decorator that does nothing changes nothing, for all types of columns."""
    around = Decorator(class_path="ml_base.decorator.MLModelDecorator")
    payload = {"dataframe_records": [record]}
    plain = json.loads(answer(of_uri(zoo_path(name)), payload))["predictions"]
    decorated = json.loads(answer(of_uri(zoo_path(name), decorators=(around,)), payload))["predictions"]
    assert decorated == ([plain] if isinstance(plain, dict) else plain)


def test_decorators_around_the_example_model(folder):
    """Payloads in MLflow's formats are answered like MLflow, and a bare record has a bare answer."""
    around = Decorator(class_path="ml_base.decorator.MLModelDecorator")
    rows = pd.read_json(folder / "iris" / "input_example.json", orient="split")
    payload = {"dataframe_split": rows.to_dict(orient="split")}
    config = of_uri(folder / "iris", decorators=(around,))
    assert answer(config, payload) == answer(of_uri(folder / "iris"), payload)
    assert answer(config, rows.to_dict("records")[0]) == '"setosa"'


@pytest.mark.parametrize("name", ["no_signature", "tensor", "unnamed"])
def test_decorators_need_named_columns(zoo_path, name):
    """Decorators need records, so a model without named columns is refused at start."""
    around = Decorator(class_path="ml_base.decorator.MLModelDecorator")
    with pytest.raises(StartError, match="only an MLflow model whose signature names its columns"):
        load(of_uri(zoo_path(name), decorators=(around,)), Settings(model_uri="m"))
    assert name in zoo.NAMES


def test_the_class_of_bridged_models_has_a_public_path(folder):
    """Configurations name the class by its public path, which does not depend on its module."""
    model = bridges.as_mlmodel(str(folder / "iris"), qualified_name="iris")
    assert import_path.find("mlflow_grpc.mlmodel.MlflowModel") is type(model)
