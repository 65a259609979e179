"""payload/protobuf/unions.py: a union's value is written in its own type, and is read back as pydantic wrote it."""

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel, Field, create_model

from mlflow_grpc import protos
from mlflow_grpc.contract import service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.json_schema import record_of
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.protobuf.reader import Reader
from mlflow_grpc.payload.protobuf.writer import fill
from tests.support.newer_models import Size


class Cat(BaseModel):
    name: str
    species: Literal["cat"] = "cat"


class Dog(BaseModel):
    name: str
    species: Literal["dog"] = "dog"


class Wide(BaseModel):
    x: int
    note: str = "n"


class Narrow(BaseModel):
    x: int


class Address(BaseModel):
    x: str | None


class Pair(BaseModel):
    left: "Tree"
    right: "Tree"
    species: Literal["pair"] = "pair"


class Mirrored(BaseModel):
    left: "Tree"
    right: "Tree"
    data_type: Literal["mirrored"] = "mirrored"


Tree = Pair | Mirrored | int
Pair.model_rebuild()
Mirrored.model_rebuild()


class Typed:
    """The message for a model whose only field `v` has a given type."""

    def __init__(self, data_type: Any) -> None:
        self.model: Any = create_model("M", v=(data_type, ...))
        record = record_of(self.model.model_json_schema(mode="serialization"), "out")
        maker = FileMaker()
        self.messages = maker.add("m", Contract(record, record))
        service.add_service(maker.file, [self.messages])
        pool = protos.pool_with(maker.file)
        self._class = protos.message_class(pool.FindMessageTypeByName(f"{PACKAGE}.{self.messages.output.name}"))

    def written(self, record: dict[str, Any]) -> Any:
        message: Any = self._class()
        fill(message, self.messages.output, record, "")
        return message

    def read(self, message: Any) -> Any:
        record = Reader(with_zone=True).record(message, self.messages.output, "")
        return self.model.model_validate_json(json.dumps(record)).v


DAY, NOON, MOMENT = date(2020, 2, 29), time(12, 30), datetime(2020, 2, 29, 12, tzinfo=UTC)
UNIQUE = UUID("00000000-0000-4000-8000-000000000001")
PETS = Annotated[Cat | Dog, Field(discriminator="species")]


@pytest.mark.parametrize("mode", ["python", "json"])
@pytest.mark.parametrize(
    ("data_type", "value", "name"),
    [
        (date | str, "hello", "string_value"),
        (date | str, DAY, "date_value"),
        (str | date, "hello", "string_value"),
        (date | datetime, MOMENT, "datetime_value"),
        (date | datetime, DAY, "date_value"),
        (datetime | date, DAY, "date_value"),
        (datetime | str, "hello", "string_value"),
        (date | time, NOON, "time_value"),
        (time | timedelta | str, timedelta(hours=1), "duration_value"),
        (timedelta | str, "a while", "string_value"),
        (UUID | str, UNIQUE, "uuid_value"),
        (UUID | str, "no uuid", "string_value"),
        (IPv6Address | IPv4Address, IPv4Address("10.0.0.1"), "ipv4_value"),
        (int | Decimal, Decimal("1.50"), "string_value"),
        (bool | int | float | str, 1, "long_value"),
        (bool | int | str, True, "boolean_value"),
        (bool | float | str, 0.5, "double_value"),
        (int | str, "1", "string_value"),
        (list[str] | list[int], [1, 2], "list_value_2"),
        (list[str] | list[int], ["a"], "list_value"),
        (list[int] | list[int | None], [1, None], "list_value_2"),
        (list[date] | list[str], ["a"], "list_value_2"),
        (set[int] | str, {1, 2}, "list_value"),
        (frozenset[int] | str, frozenset({1}), "list_value"),
        (tuple[int, ...] | str, (1, 2), "list_value"),
        (dict[str, int] | dict[str, str], {"a": "b"}, "map_value_2"),
        (dict[str, int] | Narrow, {"y": 1}, "map_value"),
        (list[Cat | Dog] | list[str], [Dog(name="x"), Cat(name="y")], "list_value"),
        (Wide | Narrow, Wide(x=1), "Wide_value"),
        (Narrow | Wide, Wide(x=1), "Wide_value"),
        (Narrow | Address, Address(x="a"), "Address_value"),
        (Narrow | Address, Address(x=None), "Address_value"),
        (PETS, Dog(name="x"), "Dog_value"),
        (PETS, Cat(name="x"), "Cat_value"),
        (dict[str, Cat] | dict[str, Dog], {"a": Dog(name="x")}, "map_value_2"),
        (Tree, Mirrored(left=1, right=Pair(left=2, right=3)), "Mirrored_value"),
        (Size | str, "medium", "string_value"),
        (Literal["a", "b"] | int, 3, "long_value"),
    ],
)
def test_values_round_trip_in_their_own_type(data_type, value, name, mode):
    """A value is written in the field of its type, and pydantic reads an equal value of the same type from it."""
    typed = Typed(data_type)
    record = typed.model(v=value).model_dump(mode=mode)
    if isinstance(value, datetime):
        record = {"v": value}  # Points in time arrive at messages unconverted.
    message = typed.written(record)
    assert message.v.WhichOneof("value") == name
    again = typed.read(message)
    assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize(
    ("data_type", "value", "name"),
    [
        (float | str, 1, "double_value"),
        (int | str, 2.0, "long_value"),
        (int | str, np.int64(3), "long_value"),
        (float | str, np.float32(0.5), "double_value"),
        (list[int] | str, np.array([1, 2]), "list_value"),
        (Wide | Narrow, {"x": 1}, "Narrow_value"),
        (time | date, "12:30", "time_value"),
        (date | str, "1577836800", "string_value"),
        (Size | str, Size.LARGE, "Size_value"),
        (date | datetime, "2020-02-29T12:00:00Z", "datetime_value"),
        (datetime | date, "2020-02-29", "date_value"),
        (datetime | str, "2020-02-29T12:00:00", "string_value"),
        (str | date, DAY, "date_value"),
        (str | datetime, MOMENT, "datetime_value"),
        (bytes | str, b"\xff", "binary_value"),
    ],
)
def test_inexact_values_are_written_without_loss(data_type, value, name):
    """Values that fit no type exactly are written without loss: numpy values, integers of another type, texts in
    another notation, and values that pydantic cannot distinguish."""
    assert Typed(data_type).written({"v": value}).v.WhichOneof("value") == name


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (int | date, "hello"),
        (int | bool, 2**63),
        (Wide | Narrow, {"x": 1, "z": 2}),
        (Wide | Narrow, {"x": "a"}),
        (PETS, {"name": "x", "species": "cow"}),
        (list[int] | list[str], [1, "a"]),
        (Narrow | dict[str, int], {("x", 1): 2}),
        (Wide | Address, {}),
    ],
)
def test_values_of_no_type_of_the_union_are_refused(data_type, value):
    """A value of none of the types is refused, and not written as another type."""
    with pytest.raises(UnserializableOutput):
        Typed(data_type).written({"v": value})


def test_recursive_types_are_checked_once_per_level():
    """Two types that differ only in their innermost value, nested 24 levels deep, are compared once per level. Without
    a cache it would be millions of times."""
    value: Any = 2**63
    for _ in range(24):
        value = {"left": value, "right": 0, "species": "mirrored"}
    with pytest.raises(UnserializableOutput):
        Typed(Tree).written({"v": value})
