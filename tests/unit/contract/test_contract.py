"""contract/: signatures and schemas to contracts, and back to schemas and examples, compared with the libraries."""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal
from uuid import UUID

import pydantic.v1
import pytest
from mlflow.types import Schema as MlflowSchema
from pydantic import BaseModel, Field, create_model
from schema import And, Optional, Or, Schema

from mlflow_grpc import protos
from mlflow_grpc.contract import json_schema, mlflow_schema, types
from mlflow_grpc.contract.examples import example_of
from mlflow_grpc.contract.names import MESSAGE_ATTRIBUTES
from mlflow_grpc.contract.types import AnyValue, DataType, Enumeration, ListOf, MapOf, Record, Scalar, Tensor, Union
from tests.support import zoo

LONG, DOUBLE, STRING = Scalar(DataType.LONG), Scalar(DataType.DOUBLE), Scalar(DataType.STRING)
SIGNATURES = {name: signature for name, signature in zoo._signatures().items() if signature is not None}


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Component(BaseModel):
    """A part."""

    weight: float = Field(gt=0, description="In kg.")


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class AllTypes(BaseModel):
    integer: int
    number: float
    flag: bool
    text: str
    data: bytes
    moment: datetime
    day: date
    clock: time
    pause: timedelta
    uuid: UUID
    decimal: Decimal
    color: Color
    level: Level
    literal: Literal["a", "b"]
    component: Component
    parts: list[Component]
    numbers: list[float | None]
    counts: dict[str, int]
    free: dict[str, Any]
    anything: Any
    pair: tuple[int, int]
    mixed: tuple[int, str]
    either: int | str
    maybe: float | None = None
    defaulted: int = Field(7, ge=5, le=9)
    tree: Tree
    labels: set[str]


class OldPart(pydantic.v1.BaseModel):
    weight: float = pydantic.v1.Field(..., gt=0, description="In kg.")


class OldAllTypes(pydantic.v1.BaseModel):
    component: OldPart = pydantic.v1.Field(..., description="A part.")
    color: Color = Color.RED
    maybe: float | None = None
    pair: tuple[int, int]
    counts: dict[str, int]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_round_trip(name):
    """A contract has everything in its signature, because MLflow's schema can be made from it again."""
    signature = SIGNATURES[name].to_dict()
    contract = mlflow_schema.contract_of(signature)
    if isinstance(contract.inputs, Record):
        back = MlflowSchema.from_json(json.dumps(mlflow_schema.schema_of(contract.inputs)))
        expected = MlflowSchema.from_json(signature["inputs"])
        assert [column.type for column in back.inputs] == [column.type for column in expected.inputs]
        assert [column.name or None for column in back.inputs] == [column.name for column in expected.inputs]
        assert [column.required for column in back.inputs] == [column.required for column in expected.inputs]
    else:
        assert (contract.inputs is None) == (signature["inputs"] is None)
    params = json.loads(signature["params"]) if signature["params"] else []
    assert [param.name for param in (contract.params.fields if contract.params else [])] == [
        param["name"] for param in params
    ]
    assert [param.default for param in (contract.params.fields if contract.params else [])] == [
        param["default"] for param in params
    ]


def test_tensors():
    """An unnamed tensor is the complete input."""
    assert mlflow_schema.contract_of(SIGNATURES["tensor"].to_dict()).inputs == Tensor("float32", (-1, 2))
    named = mlflow_schema.contract_of(SIGNATURES["tensors"].to_dict()).inputs
    assert isinstance(named, Record)
    assert {field.name: field.type for field in named.fields} == {
        "x": Tensor("float64", (-1, 2)), "mask": Tensor("int64", (-1,)),
    }  # fmt: skip


def test_no_signature():
    """Without a signature, inputs and outputs are unknown."""
    assert mlflow_schema.contract_of(None) == types.Contract()


def fields(schema):
    return {field.name: field for field in json_schema.record_of(schema, "input").fields}


def test_pydantic():
    """Fields of all types have their type in the contract."""
    columns = fields(AllTypes.model_json_schema())
    component = columns["component"].type
    assert isinstance(component, Record)
    assert [(field.name, field.type, field.description) for field in component.fields] == [("weight", DOUBLE, "In kg.")]
    assert component.description == "A part."
    assert {name: field.type for name, field in columns.items()} == {
        "integer": LONG,
        "number": DOUBLE,
        "flag": Scalar(DataType.BOOLEAN),
        "text": STRING,
        "data": Scalar(DataType.BINARY),
        "moment": Scalar(DataType.DATETIME),
        "day": Scalar(DataType.STRING, "date"),
        "clock": Scalar(DataType.STRING, "time"),
        "pause": Scalar(DataType.STRING, "duration"),
        "uuid": Scalar(DataType.STRING, "uuid"),
        "decimal": Union((DOUBLE, STRING)),
        "color": Enumeration("Color", ("red", "blue")),
        "level": LONG,
        "literal": Enumeration("Literal", ("a", "b")),
        "component": component,
        "parts": ListOf(component),
        "numbers": ListOf(DOUBLE, nullable=True),
        "counts": MapOf(LONG),
        "free": MapOf(AnyValue()),
        "anything": AnyValue(),
        "pair": ListOf(LONG),
        "mixed": ListOf(AnyValue()),
        "either": Union((LONG, STRING)),
        "maybe": DOUBLE,
        "defaulted": LONG,
        "tree": columns["tree"].type,
        "labels": ListOf(STRING),
    }
    assert (columns["maybe"].required, columns["maybe"].nullable, columns["maybe"].default) == (False, True, None)
    assert (columns["defaulted"].required, columns["defaulted"].nullable, columns["defaulted"].default) == (
        False,
        False,
        7,
    )
    tree = columns["tree"].type
    assert isinstance(tree, Record)
    assert tree.fields[1].type == ListOf(tree)


def test_pydantic_1():
    """References wrapped for a description, tuples, and definitions under their older name are read."""
    columns = fields(OldAllTypes.schema())
    component = columns["component"].type
    assert isinstance(component, Record)
    assert [(field.name, field.type) for field in component.fields] == [("weight", DOUBLE)]
    assert columns["component"].description == "A part."
    assert columns["color"].type == Enumeration("Color", ("red", "blue"))
    assert (columns["color"].required, columns["color"].default) == (False, "red")
    assert (columns["maybe"].type, columns["pair"].type, columns["counts"].type) == (DOUBLE, ListOf(LONG), MapOf(LONG))


def test_the_package_schema():
    """Schemas of the package `schema` are read from its objects."""
    schema = Schema(
        {"a": float, Optional("b", default=3): And(int, lambda b: b > 0), "c": Or("x", "y"), "d": [{"e": str}]}
    )
    columns = fields(schema.json_schema("input"))
    assert (columns["a"].type, columns["b"].type, columns["b"].required, columns["b"].default) == (
        DOUBLE,
        LONG,
        False,
        3,
    )
    inner = columns["d"].type
    assert isinstance(inner, ListOf)
    assert isinstance(inner.items, Record)
    assert [field.type for field in inner.items.fields] == [STRING]
    assert columns["c"].type == Enumeration("c", ("x", "y"))


def test_records_as_mlflow_schemas():
    """MLflow accepts the schema of a pydantic class; a recursive record ends as any value."""
    schema = MlflowSchema.from_json(
        json.dumps(mlflow_schema.schema_of(json_schema.record_of(AllTypes.model_json_schema(), "")))
    )
    kinds = {column.name: json.loads(json.dumps(column.to_dict())) for column in schema.inputs}
    assert kinds["integer"]["type"] == "long"
    assert kinds["moment"]["type"] == "datetime"
    assert kinds["color"]["type"] == "string"
    assert kinds["parts"]["items"]["properties"]["weight"]["type"] == "double"
    assert kinds["either"]["type"] == "any"
    assert kinds["maybe"]["required"] is False
    assert kinds["tree"]["properties"]["children"] == {"type": "array", "items": {"type": "any"}, "required": False}


@pytest.mark.parametrize("model", [AllTypes, Component, Tree])
def test_examples_fit(model):
    """pydantic accepts the example that is made from its own schema."""
    model.model_validate_json(json.dumps(example_of(model.model_json_schema())))


def test_examples_of_pydantic_1_and_bounds():
    """Examples respect lower and upper bounds."""
    OldAllTypes.parse_obj(example_of(OldAllTypes.schema()))
    for low, high in ((5, 9), (None, -3), (8, None), (0.25, 0.5)):
        bounds = {"exclusiveMinimum": low, "exclusiveMaximum": high}
        example: Any = example_of(
            {"type": "number", **{key: value for key, value in bounds.items() if value is not None}}
        )
        assert low is None or example > low
        assert high is None or example < high


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{3}-[0-9]+$", r"^\d{4}-\d{2}$", r"^(foo|bar)?x*$", r"^[^a-z]$", r"^[^\w\s]$", r"\bword\b", r"^(?:\+49|0)[1-9]\d{3,}$",
        r"^\w+@\w+\.[a-z]{2,}$", r"^$", r"^.{5}\S\D\W$",
    ],
)  # fmt: skip
def test_examples_of_patterns(pattern):
    """pydantic finds the pattern in the example."""
    model = create_model("Made", text=(str, Field(pattern=pattern)))
    model.model_validate(example_of(model.model_json_schema()))


@pytest.mark.parametrize("pattern", ["(", r"^(?P<a>x)(?P=a)$", "a{100000}", r"^\p{L}$", "^(?=b)a$"])
def test_unsupported_patterns_get_arbitrary_text(pattern):
    """An unsupported pattern results in an arbitrary text."""
    assert example_of({"type": "string", "pattern": pattern}) == "text"


def test_the_json_schema_of_a_signature():
    """Rows are objects with a type for each column; null is allowed where the column is not required."""
    contract = mlflow_schema.contract_of(SIGNATURES["structures"].to_dict())
    assert isinstance(contract.inputs, Record)
    schema = json_schema.schema_of(contract.inputs)
    assert schema["required"] == ["numbers", "person", "counts"]
    # MLflow accepts nulls in an array of doubles, and in a map only if its column is optional.
    assert schema["properties"]["numbers"]["items"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert schema["properties"]["counts"]["additionalProperties"]["type"] == "integer"
    assert schema["properties"]["person"]["required"] == ["name"]
    assert schema["properties"]["person"]["properties"]["age"]["anyOf"][1] == {"type": "null"}
    assert json_schema.schema_of(Tensor("float32", (-1, 2)))["items"] == {
        "type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2,
    }  # fmt: skip


def test_fields_do_not_hide_attributes_of_messages():
    """No field has the name of a public attribute of a message class."""
    assert {
        name for name in dir(protos.message_named("mlflow_grpc.v1.ListModelsRequest")) if not name.startswith("_")
    } <= MESSAGE_ATTRIBUTES
