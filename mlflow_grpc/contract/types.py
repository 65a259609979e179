"""The types that columns, fields and params can have.

Rule of this module: a type says everything that a message, a JSON Schema or an MLflow schema can be made from, and
nothing of how they look.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
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
    """One value."""

    kind: Kind
    format: str = ""
    """What a string holds, by JSON Schema's names: date, time, uuid."""


@dataclass(frozen=True)
class Enumeration:
    """One of some words."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ListOf:
    """Any number of values of one type."""

    items: "Type"
    nullable: bool = False
    """Whether there may be nulls among them, as the type says."""
    nulls_beside: bool = field(default=False, compare=False)
    """Whether there may be nulls among them although the type says nothing of it, as in MLflow's signatures. It is the
    same type with and without: what had a message before keeps it."""


@dataclass(frozen=True)
class MapOf:
    """Values of one type under any words."""

    values: "Type"
    nullable: bool = False
    nulls_beside: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Union:
    """One of several types."""

    alternatives: tuple["Type", ...]


@dataclass(frozen=True)
class AnyValue:
    """Whatever JSON can say."""


@dataclass(frozen=True)
class Tensor:
    """An array of numbers or words."""

    dtype: str
    """numpy's name."""
    shape: tuple[int, ...]
    """-1 where any size will do."""


@dataclass(frozen=True)
class Field:
    """A column, a field of a record or a param."""

    name: str
    """Empty for a column without a name."""
    type: "Type"
    required: bool = True
    nullable: bool = False
    """Whether null may stand for it."""
    description: str = ""
    default: Any = None
    """What stands for it if it is left out, as JSON; of no meaning if it is required."""
    has_unsayable_default: bool = False
    """Whether something stands for it then that JSON cannot say, or that the model makes anew each time."""

    @property
    def is_null_if_absent(self) -> bool:
        """Whether a message that leaves it out says null, as it has no other way to say that."""
        return self.required and self.nullable

    @property
    def has_default(self) -> bool:
        """Whether something other than null stands for it if it is left out."""
        return not self.required and (self.default is not None or self.has_unsayable_default)

    @property
    def needs_value(self) -> bool:
        """Whether a message without it is no good."""
        return self.required and not self.nullable


@dataclass(eq=False)
class Record:
    """Fields by their names. Compared by identity, since a record may hold itself."""

    name: str
    fields: list[Field] = field(default_factory=list)
    description: str = ""
    open: bool = False
    """Whether a value may have fields beside these."""
    is_closed: bool = False
    """Whether the model refuses a record with a field that is none of these."""


Type = Scalar | Enumeration | ListOf | MapOf | Union | AnyValue | Tensor | Record


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives: for one row where it takes rows, as a whole where it takes a tensor."""

    inputs: Record | Tensor | None = None
    """None if nothing is known."""
    outputs: Record | Tensor | None = None
    params: Record | None = None
    chunks: Record | None = None
    """What a part of an answer is that comes in parts; None if it is what the whole answer is."""
    takes_rows: bool = True
    """Whether several rows in one call get an answer each."""
    obstacle: str = ""
    """Why the types of a model are not known though it has a signature; empty if they are, or it has none."""


ANY_CHUNK = Record("chunk", [Field("", AnyValue())], "A part of an answer, as it is in JSON.")
"""Of a model that answers in parts of which nothing is known."""


def with_nulls_beside(contract: Contract) -> set[ListOf | MapOf]:
    """The lists and maps of a contract, at any depth, which may have nulls that their types do not tell."""
    found: set[ListOf | MapOf] = set()
    seen: set[int] = set()
    left: list[Type] = [each for each in (contract.inputs, contract.outputs, contract.params) if each is not None]
    while left:
        kind = left.pop()
        match kind:
            case ListOf() | MapOf():
                left.append(kind.items if isinstance(kind, ListOf) else kind.values)
                if kind.nulls_beside:
                    found.add(kind)
            case Record() if id(kind) not in seen:
                seen.add(id(kind))
                left.extend(each.type for each in kind.fields)
    return found


def has_tensors(part: Record | Tensor | None) -> bool:
    """Whether an input or output is a tensor, or has one among its fields."""
    return isinstance(part, Tensor) or (part is not None and any(isinstance(each.type, Tensor) for each in part.fields))
