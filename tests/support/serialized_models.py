"""Models of the ml_base interface whose JSON differs from their Python values."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import pydantic.v1
from ml_base import MLModel
from pydantic import (
    AliasChoices,
    AliasPath,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    PlainSerializer,
    RootModel,
    field_validator,
)


class Echo(MLModel):
    """Returns its input."""

    display_name = qualified_name = description = "echo"
    version = "1"
    input_schema: Any = None
    output_schema: Any = None

    def __init__(self) -> None:
        pass

    def predict(self, data: Any) -> Any:
        return data


def echo(schema: Any, name: str) -> type[Echo]:
    """Makes a model class for a schema."""
    return type(name, (Echo,), {"qualified_name": name, "input_schema": schema, "output_schema": schema})


class Number(BaseModel):
    value: float


class RoundedSchema(BaseModel):
    value: Annotated[float, PlainSerializer(lambda value: round(value, 1), return_type=float, when_used="json")]
    text: Annotated[float, PlainSerializer(lambda value: f"{value:.2f}", return_type=str, when_used="json")] = 1.26
    day: Annotated[datetime, PlainSerializer(lambda value: value.replace(hour=0), when_used="json")] = datetime(
        2020, 2, 29, 12
    )


Rounded = echo(RoundedSchema, "Rounded")


class InBase64Schema(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes


InBase64 = echo(InBase64Schema, "InBase64")


class AnySchema(BaseModel):
    value: Any


class Color(Enum):
    RED = "red"


class Anything(Echo):
    """Returns values that only Python has."""

    qualified_name = "Anything"
    input_schema = Number
    output_schema = AnySchema

    def predict(self, data: Any) -> Any:
        return AnySchema(value={"color": Color.RED, "data": b"xy", "day": date(2020, 2, 29), "pair": (1, 2**53)})


class OldSchema(pydantic.v1.BaseModel):
    decimal: Decimal = Decimal("1.50")
    moment: datetime = datetime(2020, 2, 29, 12)
    data: bytes = b"x"
    color: Color = Color.RED


Old = echo(OldSchema, "Old")


class OldEncodersSchema(pydantic.v1.BaseModel):
    class Config:
        json_encoders = {timedelta: lambda value: value.total_seconds()}  # noqa: RUF012 - as pydantic 1 has it

    span: timedelta


OldEncoders = echo(OldEncodersSchema, "OldEncoders")


class Inner(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64")

    data: bytes


class BytesSchema(BaseModel):
    plain: bytes
    encoded: Base64Bytes
    many: list[Base64Bytes] = []
    inner: Inner | None = None
    either: Base64Bytes | int = 0


class Bytes(Echo):
    """Returns which bytes it got."""

    qualified_name = "Bytes"
    input_schema = BytesSchema
    output_schema = AnySchema

    def predict(self, data: Any) -> Any:
        values = [data.plain, data.encoded, *data.many, data.inner.data if data.inner else b"", data.either]
        return AnySchema(value=[value.hex() if isinstance(value, bytes) else value for value in values])


BytesEcho = echo(BytesSchema, "BytesEcho")


class NaiveSchema(BaseModel):
    moment: NaiveDatetime
    moments: list[NaiveDatetime] = []


Naive = echo(NaiveSchema, "Naive")


class ZonesSchema(BaseModel):
    model_config = ConfigDict(extra="forbid")

    any: datetime
    naive: NaiveDatetime
    aware: AwareDatetime
    either: NaiveDatetime | AwareDatetime
    by_name: dict[str, NaiveDatetime] = {}
    inner: NaiveSchema | None = None
    text: str = ""


Zones = echo(ZonesSchema, "Zones")


class StrictSchema(BaseModel):
    model_config = ConfigDict(strict=True)

    data: bytes
    day: date


Strict = echo(StrictSchema, "Strict")


class AliasSchema(BaseModel):
    value: float = Field(validation_alias="instances")


Alias = echo(AliasSchema, "Alias")


class ChoicesSchema(BaseModel):
    value: float = Field(validation_alias=AliasChoices("number", AliasPath("inputs", "deep")))


Choices = echo(ChoicesSchema, "Choices")


class List(RootModel[list[float]]):
    pass


class RootList(Echo):
    """Returns a list."""

    qualified_name = "RootList"
    input_schema = Number
    output_schema: Any = List

    def predict(self, data: Any) -> Any:
        return List([data.value, 1.0])


class OldList(pydantic.v1.BaseModel):
    __root__: list[float]


class OldRootList(RootList):
    """Returns a list, with pydantic 1."""

    qualified_name = "OldRootList"
    output_schema = OldList

    def predict(self, data: Any) -> Any:
        return OldList(__root__=[data.value, 1.0])


class Scalar(RootModel[float]):
    pass


class RootScalar(RootList):
    """Returns a number."""

    qualified_name = "RootScalar"
    output_schema = Scalar

    def predict(self, data: Any) -> Any:
        return Scalar(data.value)


RootMap = echo(RootModel[dict[str, float]], "RootMap")


class Code(BaseModel):
    code: str

    @field_validator("code")
    @classmethod
    def known_code(cls, code: str) -> str:
        return {"a": "A"}[code]


Raises = echo(Code, "Raises")


class Unfinished(BaseModel):
    ratio: float = float("nan")
    default: int = 1


Defaults = echo(Unfinished, "Defaults")


class DeterministicRaises(RootScalar):
    """Raises when asked whether it is deterministic."""

    @property
    def deterministic(self) -> bool:
        raise RuntimeError("not known")


class Outer:
    class Inner(RootScalar):
        """A class inside a class."""


class CellsSchema(BaseModel):
    number: float
    default: float = 0.5
    text: str | None
    other: str | None = "other"
    data: list[bytes] = []
    encoded: Base64Bytes = b"eA=="
    count: int = 7


Cells = echo(CellsSchema, "Cells")


class OldCellsSchema(pydantic.v1.BaseModel):
    number: float
    text: str | None = pydantic.v1.Field(...)
    other: str | None = "other"


OldCells = echo(OldCellsSchema, "OldCells")
