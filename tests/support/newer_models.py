"""Models of the ml_base interface, similar to published ones, and some that fail."""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pydantic.v1
from ml_base import MLModel
from ml_base.decorator import MLModelDecorator
from ml_base.ml_model import MLModelSchemaValidationException
from pydantic import BaseModel, ConfigDict, Field


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Part(BaseModel):
    weight: float = Field(gt=0)
    tags: list[str] = []


class Everything(BaseModel):
    """A field of each common kind."""

    name: str
    size: Size = Size.SMALL
    born: date
    seen: datetime | None = None
    parts: list[Part] = []
    extra: dict[str, int] = {}
    count: int = 0
    flag: bool = False
    inputs: float | None = None
    kind: str = Field("plain", alias="type")


class Echo(MLModel):
    """Returns its input."""

    display_name = "Echo"
    qualified_name = "echo"
    description = "Gives back what it gets."
    version = "1.2.0"
    input_schema = Everything
    output_schema = Everything

    def __init__(self, suffix: str = "") -> None:
        self._suffix = suffix

    def predict(self, data: Everything) -> Everything:
        if data.name == "raise":
            raise ValueError("a secret")
        if data.name == "exit":
            raise SystemExit(3)
        if data.name == "refuse":
            raise MLModelSchemaValidationException("No such thing is known.")
        return data.model_copy(update={"name": data.name + self._suffix})


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Branch(BaseModel):
    name: str
    children: list["Branch"] = []


class AllTypes(BaseModel):
    """Every kind of field."""

    integer: int
    number: float
    flag: bool
    text: str
    data: bytes
    moment: datetime
    day: date
    uuid: UUID
    decimal: Decimal
    size: Size
    level: Level
    literal: Literal["a", "b-c", "B c"]
    part: Part
    parts: list[Part]
    numbers: list[float | None]
    counts: dict[str, int]
    groups: dict[str, list[int]]
    anything: Any
    mixed: tuple[int, str]
    either: int | str | Part
    branch: Branch
    labels: set[str]
    maybe: float | None = None
    defaulted: int = Field(7, ge=5)
    maybe_list: list[int] | None = None
    strange_name: int = Field(0, alias="strange name!")


class Mirror(Echo):
    """Returns its input, whatever it is."""

    qualified_name = "mirror"
    input_schema = AllTypes  # type: ignore[assignment]
    output_schema = AllTypes  # type: ignore[assignment]

    def predict(self, data: Any) -> Any:
        return data


class Few(BaseModel):
    count: int
    ratio: float
    word: str = ""


class Liar(Echo):
    """Returns outputs that violate its output schema, selected by a word."""

    qualified_name = "liar"
    input_schema = Few  # type: ignore[assignment]
    output_schema = Few  # type: ignore[assignment]

    def predict(self, data: Any) -> Any:
        return {
            "text for a number": {"count": "3"},
            "too large": {"count": 2**63},
            "not whole": {"count": 1.5},
            "more": {"count": 1, "secret": 2},
            "too few": [1],
            "too many": [1, 0.5, "", 4],
            "nothing": None,
            "whole float": {"count": 3.0, "ratio": 2},
            "inexact": {"ratio": 2**53 + 1},
        }[data.word]


class StrictInput(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    day: date
    ratio: float


class StrictOutput(BaseModel):
    value: float
    array: Any = None


class Strict(Echo):
    """A strict schema, and an output with numpy values."""

    qualified_name = "strict model"
    version = "2"
    input_schema = StrictInput  # type: ignore[assignment]
    output_schema = StrictOutput  # type: ignore[assignment]

    def predict(self, data: Any) -> Any:
        return {"value": np.float64(data.ratio), "array": np.arange(2), "day": data.day}


class OldInput(pydantic.v1.BaseModel):
    number: pydantic.v1.conint(gt=0)  # type: ignore[valid-type]
    size: Size = Size.SMALL


class OldOutput(pydantic.v1.BaseModel):
    number: int
    size: Size
    at: datetime


class OldStyle(Echo):
    """Schemas of pydantic 1."""

    qualified_name = "old_style"
    input_schema = OldInput  # type: ignore[assignment]
    output_schema = OldOutput  # type: ignore[assignment]

    def predict(self, data: Any) -> Any:
        return OldOutput(number=data.number, size=data.size, at=datetime(2020, 2, 29, 12))


class Suffix(MLModelDecorator):
    """Appends a suffix to the name in the output."""

    def predict(self, data: Any) -> Any:
        answer = self._model.predict(data=data)
        return answer.model_copy(update={"name": answer.name + self._configuration["suffix"]})


class Gate(MLModelDecorator):
    """Business logic before the model: refuses small values."""

    def predict(self, data: Any) -> Any:
        if data.size is Size.SMALL:
            raise MLModelSchemaValidationException("Too small.")
        return self._model.predict(data=data)


class Text(BaseModel):
    text: str


class Words(Echo):
    """Answers in chunks, one word after the other."""

    qualified_name = "words"
    input_schema = Text  # type: ignore[assignment]
    output_schema = Text  # type: ignore[assignment]

    def predict(self, data: Any) -> Any:
        return data

    def predict_stream(self, data: Any) -> Iterator[Any]:
        for word in data.text.split():
            if word == "raise":
                raise ValueError("a secret")
            yield Text(text=word)


class Breaks(Echo):
    def __init__(self) -> None:
        raise RuntimeError("no weights\nat all")


class Odd(Echo):
    version = 3  # type: ignore[assignment]


class NoSchema(Echo):
    input_schema = int  # type: ignore[assignment]


class Half(MLModel):
    """Lacks methods that the interface requires."""

    display_name = "half"


class NoModel:
    """A class without a base class."""


not_a_class = 3
