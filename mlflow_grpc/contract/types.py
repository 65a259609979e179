"""The types that columns, fields and params can have.

Rule of this module: a type has what is needed to make a message, a JSON Schema or an MLflow schema, and does not depend
on the form of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""A JSON value."""

JsonSchema: TypeAlias = dict[str, Any]
"""A JSON Schema, or a part of one: an object whose values depend on the keyword, as `json` gives it."""


class DataType(StrEnum):
    """Scalar types, by MLflow's names (`mlflow.types.DataType`)."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    """32 bits."""
    LONG = "long"
    """64 bits."""
    FLOAT = "float"
    """32 bits."""
    DOUBLE = "double"
    """64 bits."""
    STRING = "string"
    BINARY = "binary"
    DATETIME = "datetime"


@dataclass(frozen=True)
class Scalar:
    """A single value."""

    data_type: DataType
    format: str = ""
    """Format of a string, by JSON Schema's names: date, time, uuid."""


@dataclass(frozen=True)
class Enumeration:
    """A string out of a fixed set."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ListOf:
    """Any number of values of the same type."""

    items: "Type"
    nullable: bool = False
    """True if the type declares that items may be null."""
    undeclared_nulls: bool = field(default=False, compare=False)
    """True if items may be null although the type does not declare it, as in MLflow's signatures. Two types that differ
    only in this are equal, so that a message made before the difference was known keeps its name and numbers."""


@dataclass(frozen=True)
class MapOf:
    """Values of the same type under any keys."""

    values: "Type"
    nullable: bool = False
    undeclared_nulls: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Union:
    """A value of any of several types."""

    alternatives: tuple["Type", ...]


@dataclass(frozen=True)
class AnyValue:
    """Any JSON value."""


@dataclass(frozen=True)
class Tensor:
    """An array of numbers or strings."""

    dtype: str
    """numpy's name of the dtype."""
    shape: tuple[int, ...]
    """-1 for a dimension of any size."""


@dataclass(frozen=True)
class Field:
    """A column, a field of a record or a param."""

    name: str
    """Empty for a column without a name."""
    type: "Type"
    required: bool = True
    nullable: bool = False
    """True if the value may be null."""
    description: str = ""
    default: Json = None
    """Value of a field that is left out, as JSON; meaningless for a required field."""
    has_default_outside_json: bool = False
    """True if the field has a default that JSON cannot express, or that the model makes for each call."""

    @property
    def is_null_if_absent(self) -> bool:
        """True if a message without the field means null, because it cannot express null in another way."""
        return self.required and self.nullable

    @property
    def has_default(self) -> bool:
        """True if a field that is left out has a value other than null."""
        return not self.required and (self.default is not None or self.has_default_outside_json)

    @property
    def needs_value(self) -> bool:
        """True if a message without the field is invalid."""
        return self.required and not self.nullable


@dataclass(eq=False)
class Record:
    """Fields by their names. Compared by identity, because a record may contain itself."""

    name: str
    fields: list[Field] = field(default_factory=list)
    description: str = ""
    open: bool = False
    """True if a value may have fields beside these, which the message keeps as JSON."""
    is_closed: bool = False
    """True if the model refuses a record with any other field."""


Type = Scalar | Enumeration | ListOf | MapOf | Union | AnyValue | Tensor | Record


@dataclass(frozen=True)
class Contract:
    """The inputs and outputs of a model: of a single row if it takes rows, of a whole call if it takes a tensor."""

    inputs: Record | Tensor | None = None
    """None if the model declares no inputs."""
    outputs: Record | Tensor | None = None
    params: Record | None = None
    chunks: Record | None = None
    """Type of a chunk of a streamed answer; None if a chunk is a complete output."""
    takes_rows: bool = True
    """True if several rows in a call get an answer each."""
    obstacle: str = ""
    """The reason why the types of a signature are unknown; empty if they are known or there is no signature."""


ANY_CHUNK = Record("chunk", [Field("", AnyValue())], "A part of an answer, as it is in JSON.")
"""Chunk of a model that streams without declaring the type of its chunks."""


def types_with_undeclared_nulls(contract: Contract) -> set[ListOf | MapOf]:
    """The lists and maps of a contract, at any depth, that may have nulls although their types do not declare it."""
    roots = [root for root in (contract.inputs, contract.outputs, contract.params) if root is not None]
    return {
        inner
        for root in roots
        for inner in _nested(root, set())
        if isinstance(inner, ListOf | MapOf) and inner.undeclared_nulls
    }


def _nested(outer: Type, visited: set[int]) -> Iterator[Type]:
    """A type and all types in its lists, maps and records; a record that contains itself comes once."""
    yield outer
    match outer:
        case ListOf():
            yield from _nested(outer.items, visited)
        case MapOf():
            yield from _nested(outer.values, visited)
        case Record() if id(outer) not in visited:
            visited.add(id(outer))
            for column in outer.fields:
                yield from _nested(column.type, visited)


def has_tensors(root: Record | Tensor | None) -> bool:
    """Returns True if an input or output is a tensor, or has one among its fields."""
    return isinstance(root, Tensor) or (root is not None and any(isinstance(f.type, Tensor) for f in root.fields))


def row_of(type_: Type) -> Type:
    """The type of a row of a column: a tensor without its batch dimension, any other type as it is."""
    if isinstance(type_, Tensor) and type_.shape[:1] == (-1,):
        return Tensor(type_.dtype, type_.shape[1:])
    return type_
