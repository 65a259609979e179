"""The stepper as an MLModel class, whose server does not import MLflow, which takes seconds."""

from typing import Any

from ml_base import MLModel
from pydantic import BaseModel

from tests.support.steps import step


class Steps(BaseModel):
    inputs: list[str]


class Outcome(BaseModel):
    predictions: Any


class Stepper(MLModel):
    """Takes and returns the same JSON texts as the MLflow stepper."""

    display_name = qualified_name = "model"
    description = "A model to step through."
    version = "1.0.0"
    input_schema = Steps
    output_schema = Outcome

    def __init__(self) -> None:
        pass

    def predict(self, data: Steps) -> Outcome:
        return Outcome(predictions=step(*data.inputs))
