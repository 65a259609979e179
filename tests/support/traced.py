"""A model that MLflow traces, saved as a model from code."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


@mlflow.trace
def look_up(word: str) -> str:
    return word.upper()


class Traced(PythonModel):
    @mlflow.trace
    def predict(self, model_input: list[str]) -> list[str]:
        return [look_up(word) for word in model_input]

    @mlflow.trace
    def predict_stream(self, model_input: list[str]) -> Iterator[str]:
        for letter in "".join(model_input):
            yield look_up(letter)


def save(path: Path) -> None:
    mlflow.pyfunc.save_model(path, python_model=__file__, pip_requirements=["mlflow"], input_example=["example"])


set_model(Traced())
