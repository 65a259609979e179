"""The iris model and its schemas."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from ml_base import MLModel
from pydantic import BaseModel, Field


class Species(StrEnum):
    """The three species of the data set."""

    SETOSA = "setosa"
    VERSICOLOR = "versicolor"
    VIRGINICA = "virginica"


class ModelInput(BaseModel):
    """The measurements of one flower."""

    sepal_length: float = Field(gt=0, lt=80, description="Length of the sepal, in cm.")
    sepal_width: float = Field(gt=0, lt=80, description="Width of the sepal, in cm.")
    petal_length: float = Field(gt=0, lt=80, description="Length of the petal, in cm.")
    petal_width: float = Field(gt=0, lt=80, description="Width of the petal, in cm.")


class ModelOutput(BaseModel):
    """The predicted species."""

    species: Species = Field(description="The predicted species.")


class IrisModel(MLModel):
    """Predicts the species of an iris."""

    display_name = "Iris Model"
    qualified_name = "iris_model"
    description = "Predicts the species of an iris from the measures of its flower."
    version = "1.0.0"
    input_schema = ModelInput
    output_schema = ModelOutput

    def __init__(self) -> None:
        file = Path(__file__).parent / "model.skops"
        self._classifier: Any = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))

    def predict(self, data: ModelInput) -> ModelOutput:
        """Returns the species of one flower."""
        measures = np.array([[data.sepal_length, data.sepal_width, data.petal_length, data.petal_width]])
        return ModelOutput(species=Species(self._classifier.predict(measures)[0]))
