"""Models of the ml_base interface whose records are easily misread: unions and nulls."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tests.support.newer_models import Mirror


class Cat(BaseModel):
    name: str
    kind: Literal["cat"]


class Dog(BaseModel):
    name: str
    kind: Literal["dog"]


class Wide(BaseModel):
    x: int
    note: str = "n"


class Narrow(BaseModel):
    x: int


class Either(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    day: date | str
    moment: date | datetime
    several: list[str] | list[int]
    labels: set[int] | str
    part: Narrow | Wide


class Unions(Mirror):
    """Returns a record of unions."""

    qualified_name = "unions"
    input_schema = Either  # type: ignore[assignment]
    output_schema = Either  # type: ignore[assignment]


class Inner(BaseModel):
    x: int | None


class MayBeNull(BaseModel):
    number: int | None
    items: list[int] | None
    inner: Inner
    kind: Literal["a", "b"] | None
    ratio: float = 0.5


class Nulls(Mirror):
    """Returns a record with required fields that may be null."""

    qualified_name = "nulls"
    input_schema = MayBeNull  # type: ignore[assignment]
    output_schema = MayBeNull  # type: ignore[assignment]
