"""Models of the ml_base interface as in services of rest-model-service, and some that fail in particular ways."""

import math
from enum import Enum
from typing import Any

from ml_base import MLModel
from ml_base.ml_model import MLModelSchemaValidationException
from pydantic import BaseModel, ConfigDict, Field, field_validator


class Species(str, Enum):  # noqa: UP042 - the idiom of published models
    SETOSA = "Iris setosa"
    VIRGINICA = "Iris virginica"


class Flower(BaseModel):
    """Bounds, a default, a nested list."""

    sepal_length: float = Field(gt=5.0, lt=8.0, description="Length of the sepal.")
    sepal_width: float = Field(gt=2.0, lt=6.0)
    petals: list[float] = Field(default=[], max_length=3)
    species: Species | None = None
    note: str = Field("none", alias="remark")

    @field_validator("note")
    @classmethod
    def no_shouting(cls, note: str) -> str:
        if note.isupper():
            raise ValueError("do not shout")
        return note


class Guess(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    species: Species
    score: float
    note: str = Field("", alias="remark")
    details: dict[str, Any] = {}


class Iris(MLModel):
    """Does what the note says."""

    display_name = "Iris Model"
    qualified_name = "iris_model"
    description = "Guesses the species — of a flower."
    version = "0.1.0"
    input_schema = Flower
    output_schema = Guess

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale

    def predict(self, data: Flower) -> Any:
        note, species = data.note, data.species or Species.SETOSA
        if note == "raise":
            raise ValueError("a secret")
        if note == "refuse":
            raise MLModelSchemaValidationException("Flowers of this size are not known.")
        if note == "no message":
            raise MLModelSchemaValidationException
        if note == "bad output":
            return Guess.model_validate({"species": "Iris unknown", "score": "high"})
        if note == "nothing":
            return None
        if note == "a dict":
            return {"species": "Iris setosa"}
        if note == "another class":
            return data
        score = math.nan if note == "nan" else data.sepal_length * self._scale
        values = {"species": species, "score": score, "note": note, "details": {"petals": data.petals}}
        return Guess.model_validate(values)


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")

    x: int


class LooseEcho(Iris):
    """Accepts and returns fields that its schema does not have."""

    qualified_name = "loose echo"
    input_schema = output_schema = Loose  # type: ignore[assignment]

    def predict(self, data: Any) -> Any:
        return data
