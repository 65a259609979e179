"""The stepper as an MLModel class, whose server does not import MLflow, which takes seconds."""

import os
from pathlib import Path
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


class Gated(Stepper):
    """A stepper that waits at load until the test writes to its gate, a named pipe, and then does what the test wrote.

    It loads at once while there is no pipe.
    """

    qualified_name = "gated"

    def __init__(self, gate: str) -> None:
        if Path(gate).exists():
            print("gated: loading now", flush=True)
            action = Path(gate).read_text()
            if action == "raise":
                raise RuntimeError("boom")
            if action == "exit":
                os._exit(7)
