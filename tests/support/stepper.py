"""An MLflow model that tests control step by step (`tests.support.steps`): `{"inputs": ["step", ...]}`."""

from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel

from tests.support.steps import step


class Stepper(PythonModel):
    """Gets `inputs` as an array."""

    def predict(self, context, model_input, params=None):
        return step(*[str(item) for item in model_input])


def save(path: Any) -> None:
    """Saves the model, without a signature."""
    mlflow.pyfunc.save_model(path, python_model=__file__, pip_requirements=["mlflow"])


mlflow.models.set_model(Stepper())
