"""mlflow_grpc/contract/accessors.py: no column has the name of a method that protoc generates for another column."""

import itertools

import pytest

from mlflow_grpc.contract.lockfile.format import LockedModel
from mlflow_grpc.contract.types import (
    Contract,
    DataType,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
)
from tests.unit.contract.test_proto_text import planned

LONG, TEXT = Scalar(DataType.LONG), Scalar(DataType.STRING)
CHOICE = Enumeration("choice", ("a", "b"))
TIME = Scalar(DataType.DATETIME)
PART = Record("part", [Field("n", LONG)])

CLASHES: list[tuple[str, Type, str]] = [
    ("x", LONG, "has_x"),
    ("x", LONG, "x_size"),
    ("x", LONG, "clear_x"),
    ("x", LONG, "x_field_number"),
    ("GARAGE", LONG, "HAS_GARAGE"),
    ("x", LONG, "HasX"),
    ("x_1a", LONG, "has_x_1a"),
    ("x", TEXT, "x_bytes"),
    ("x", ListOf(TEXT), "x_bytes"),
    ("x", ListOf(LONG), "x_builder"),
    ("x", CHOICE, "x_value"),
    ("x", TIME, "x_builder"),
    ("x", PART, "x_or_builder"),
    ("x", Tensor("float64", (-1, 2)), "x_builder"),
    ("x", MapOf(LONG), "mutable_x"),
    ("x", MapOf(CHOICE), "x_value"),
    ("x", MapOf(LONG), "x_map"),
    ("x", LONG, "x_nulls_size"),
]
"""Name and type of a column, and the name of a column that clashes with it in C++, Java or C#."""


def names_of(columns: list[Field], message: str = "m_input") -> dict[str, str]:
    """The names of a message's fields, by the names without a suffix."""
    maker = planned(Contract(Record("", columns), Record("", columns)))
    fields = next(descriptor for descriptor in maker.file.message_type if descriptor.name == message).field
    return {field.name.removesuffix("_field"): field.name for field in fields}


def test_columns_named_like_macros() -> None:
    """Columns with the names of macros of C++, in any case, get a suffix, because its methods are in lower case."""
    names = names_of([Field("unix", LONG), Field("Errno", LONG), Field("epoch", LONG)])
    assert names == {"unix": "unix_field", "Errno": "Errno_field", "epoch": "epoch"}


@pytest.mark.parametrize(("name", "type_", "clashing"), CLASHES)
def test_columns_named_like_accessors_of_others(name: str, type_: Type, clashing: str) -> None:
    """The column with the name of a method gets a suffix, and the other one keeps its name, in any order."""
    columns = [Field(name, type_), Field(clashing, LONG)]
    for order in itertools.permutations(columns):
        names = names_of(list(order))
        assert (names[name], names[clashing]) == (name, f"{clashing}_field")


@pytest.mark.parametrize(
    ("name", "type_", "other"),
    [
        ("x", LONG, "x_bytes"),
        ("x", TEXT, "x_value"),
        ("x", LONG, "x_builder"),
        ("x", ListOf(LONG), "x_count"),
        ("x", LONG, "get_x"),
        ("x", LONG, "set_x"),
        ("file", LONG, "FileSize"),
        ("text", LONG, "cleartext"),
        ("road", MapOf(LONG), "roadmap"),
    ],
)
def test_other_columns_keep_their_names(name: str, type_: Type, other: str) -> None:
    """A name with which generated code compiles is kept."""
    for order in itertools.permutations([Field(name, type_), Field(other, LONG)]):
        assert names_of(list(order)).items() >= {name: name, other: other}.items()


def test_fields_that_the_contract_adds() -> None:
    """A column of answers does not clash with the field for an error, whose name stays."""
    names = names_of([Field("has_error", LONG)], message="m_output")
    assert names == {"has_error": "has_error_field", "error": "error"}
    assert names_of([Field("has_error", LONG)]) == {"has_error": "has_error"}


def test_locked_names_stay() -> None:
    """A column in the lock keeps its name, and a new one that clashes with it gets another, whichever has the method."""

    def locked(*columns: str, before: LockedModel | None = None) -> LockedModel:
        record = Record("", [Field(name, LONG) for name in columns])
        lock: LockedModel = planned(Contract(record, record), before).locks["m"]
        return lock

    def names(lock: LockedModel) -> dict[str, str]:
        return {key: field.name for key, field in lock.messages["input"].fields.items()}

    assert names(locked("x_size", "x", before=locked("x"))) == {"x": "x", "x_size": "x_size_field"}
    second = locked("x", "x_size", before=locked("x_size"))
    assert names(second) == {"x": "x_field", "x_size": "x_size"}
    assert names(locked("x", "x_size", before=second)) == names(second)
    text = locked("x", "x_size").model_dump_json(by_alias=True).replace("x_size_field", "x_size")
    old = LockedModel.model_validate_json(text)
    assert names(locked("x_size", "x", before=old)) == {"x": "x", "x_size": "x_size"}
