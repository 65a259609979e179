"""MLflow models that are a function of a DataFrame, for tests of tables."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel

from tests.support.shared import made_once

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class FunctionOfFrame(PythonModel):
    """A model that is a function, which the process of the test has too."""

    functions: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init__(self, name: str) -> None:
        self.name = name

    def predict(self, context, model_input, params=None):
        from tests.support.tables import FunctionOfFrame

        return FunctionOfFrame.functions[self.name](model_input, params)


def saved(
    factory: pytest.TempPathFactory, name: str, function: Callable[..., Any], signature: ModelSignature | None
) -> Path:
    """Saves a model and returns its directory."""
    FunctionOfFrame.functions[name] = function

    def save(path: Path) -> None:
        mlflow.pyfunc.save_model(path, python_model=FunctionOfFrame(name), signature=signature, pip_requirements=[])

    return made_once(factory, f"table_{name}", save)
