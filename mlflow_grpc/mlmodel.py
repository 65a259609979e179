"""Bridges between MLflow models and MLModel packages, for notebooks and other services.

Rule of this module: it is the public Python API of the server's distribution. The server itself does not need it.

`MlflowModel` is the class of the models that `as_mlmodel` makes. A configuration of rest-model-service names it by its
path, `mlflow_grpc.mlmodel.MlflowModel`. It is imported on first use, because it needs the package ml-base.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema

from mlflow_grpc.contract import mlflow_schema
from mlflow_grpc.contract.types import AnyValue, Record
from mlflow_grpc.hosting.mlmodel import adapter, as_pyfunc


def __getattr__(name: str) -> Any:
    if name == "MlflowModel":
        from mlflow_grpc.hosting.mlmodel.from_pyfunc import MlflowModel

        return MlflowModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def log_model(class_path: str, *, name: str = "model", **more: Any) -> ModelInfo:
    """Logs an MLModel class as an MLflow model, which any MLflow server can serve.

    The signature is made from the class's schemas, and the package that the class is in is among the requirements.

    Args:
        class_path: `package.module.Class`.
        name: The name of the logged model.
        more: `configuration`, the keyword arguments of the class, and what `mlflow.pyfunc.log_model` takes besides.

    Raises:
        StartError: There is no such class, or it does not implement the interface.
        ValueError: The class is in no installed package, and no `pip_requirements` are given.

    """
    logged: ModelInfo = mlflow.pyfunc.log_model(name=name, **_arguments(class_path, more))
    return logged


def save_model(class_path: str, path: str | Path, **more: Any) -> None:
    """Saves an MLModel class as an MLflow model in a directory; takes the arguments of `log_model`."""
    mlflow.pyfunc.save_model(path=path, **_arguments(class_path, more))


def as_mlmodel(
    model_uri: str, *, qualified_name: str, version: str = "", model_config: dict[str, Any] | None = None
) -> Any:
    """Adapts an MLflow model to the interface `ml_base.MLModel`, for services that are written for it.

    Its schemas are pydantic classes made from the signature. Needs the package ml-base.

    Args:
        model_uri: Any URI that `mlflow.pyfunc.load_model` takes.
        qualified_name: Name of the adapted model.
        version: Its version; by default the id of its run.
        model_config: MLflow's `model_config`.

    Raises:
        StartError: The model has no signature of named columns.

    """
    from mlflow_grpc.hosting.mlmodel.from_pyfunc import MlflowModel

    return MlflowModel(model_uri, qualified_name=qualified_name, version=version, model_config=model_config)


def _arguments(class_path: str, more: dict[str, Any]) -> dict[str, Any]:
    configuration = more.pop("configuration", None)
    info = adapter.load(class_path, configuration=configuration).info
    inputs, outputs = info.contract.inputs, info.contract.outputs
    arguments = {
        "python_model": as_pyfunc.__file__,
        "model_config": {"class_path": class_path, "configuration": configuration},
        "signature": ModelSignature(inputs=_schema(inputs), outputs=_schema(outputs)),
        **more,
    }
    if "pip_requirements" not in more:
        arguments["pip_requirements"] = [f"mlflow=={mlflow.__version__}", *_package_of(class_path)]
    return arguments


def _schema(record: Any) -> Schema | None:
    # A record without fields, or whose only field takes any value, has nothing that a signature could express.
    has_types = isinstance(record, Record) and any(field.name or field.type != AnyValue() for field in record.fields)
    return Schema.from_json(json.dumps(mlflow_schema.schema_of(record))) if has_types else None


def _package_of(class_path: str) -> list[str]:
    module = class_path.partition(".")[0]
    packages = sorted(set(importlib.metadata.packages_distributions().get(module, ())))
    if not packages:
        raise ValueError(
            f"{module} is in no installed package, so a server could not install it; give pip_requirements, and "
            "code_paths if the model is to bring the code along"
        )
    return [f"{name}=={importlib.metadata.version(name)}" for name in packages]
