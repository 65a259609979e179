"""Shapes of a model's messages: what each field holds. Server and client write and read messages by their shapes.

The server makes shapes together with descriptors, from the types of a model. The client makes them from descriptors and
the message mlflow_grpc.v1.Model. Attributes that are not on the wire say so; in a client they have their defaults.

Rule of this module: a shape describes messages and knows no values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from _mlflow_grpc_protocol.typed_terms import Cardinality

ProtoType: TypeAlias = "Proto.Type.ValueType"
"""Number of a field type, as in google.protobuf.FieldDescriptorProto."""


@dataclass(frozen=True)
class ScalarShape:
    """A scalar."""

    type: ProtoType
    format: str = ""
    """Format of a text, by JSON Schema's names; not on the wire."""


@dataclass(frozen=True)
class EnumShape:
    """An enum. The number 0 is unspecified."""

    enum: str
    """Name of the enum in the package."""
    values: Mapping[int, str]
    """Values in the model, by their numbers."""
    numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """The reverse of `values`; the first number of a value counts."""

    def __post_init__(self) -> None:
        numbers: dict[str, int] = {}
        for number, value in self.values.items():
            numbers.setdefault(value, number)
        object.__setattr__(self, "numbers", numbers)


@dataclass(frozen=True)
class TimestampShape:
    """google.protobuf.Timestamp."""


@dataclass(frozen=True)
class ValueShape:
    """google.protobuf.Value: any JSON value."""


@dataclass(frozen=True)
class TensorShape:
    """A message of packed data and a shape."""

    message: str
    element: ScalarShape
    """Shape of the data."""
    dtype: str = ""
    """numpy's name of the type; not on the wire."""
    shape: tuple[int, ...] = ()
    """Shape of a row, without the batch dimension; not on the wire."""


@dataclass(frozen=True)
class OneofShape:
    """A message with a oneof: a field for each alternative of a union, by name."""

    message: str
    alternatives: Mapping[str, "Shape"]


@dataclass(frozen=True)
class WrapperShape:
    """A message around a list or map (field `values`), or around a value that may be null (field `value`)."""

    message: str
    content: "FieldShape"


@dataclass(eq=False)
class MessageShape:
    """A message for a record, or for any number of rows, in columns.

    Fields are added after its creation, because a message can contain itself.
    """

    name: str
    """Name of the message in the package."""
    fields: list["FieldShape"] = field(default_factory=list)
    extra: str = ""
    """Name of the map with the values that have no field; empty for a record that is not open."""
    is_closed: bool = False
    """True if a message with an unknown field is refused; not on the wire."""

    @cached_property
    def by_name(self) -> dict[str, "FieldShape"]:
        """The fields by their names in the message, once all fields are added."""
        return {member.name: member for member in self.fields}

    @cached_property
    def by_any_name(self) -> dict[str, "FieldShape"]:
        """The fields by their names in the model and in the message. The name in the model wins if both exist."""
        return {**self.by_name, **{member.model_name: member for member in self.fields if member.model_name}}

    @property
    def sole_unnamed_field(self) -> "FieldShape | None":
        """The field of a record that has just one, without a name in the model; None for any other record."""
        return self.fields[0] if len(self.fields) == 1 and not self.fields[0].model_name else None


Shape: TypeAlias = (
    "ScalarShape | EnumShape | TimestampShape | ValueShape | TensorShape | OneofShape | WrapperShape | MessageShape"
)


def items_may_be_null(shape: Shape) -> bool:
    """Returns True if a list or map of these values can hold a null as one of them."""
    return isinstance(shape, ValueShape) or (isinstance(shape, WrapperShape) and shape.content.is_singular)


@dataclass(frozen=True)
class FieldShape:
    """A field of a message, and the shape of its values."""

    name: str
    """Name of the field in the message."""
    model_name: str
    """Name of the column, record field or param that the field is for; empty if it has none."""
    shape: Shape
    """Shape of the value, or of each value of a list or map."""
    cardinality: Cardinality = Cardinality.SINGULAR
    number: int = 0
    required: bool = False
    """True if the model needs the field. For a client, a required field that may be null is not required."""
    nullable: bool = False
    """True if the value may be null; not on the wire."""
    has_default: bool = False
    """True if a field that is left out has a value other than null."""
    null_flag: str = ""
    """Name of the field that is true for a null list or map, which is otherwise the same as an empty one."""
    null_items: str = ""
    """Name of the field with the indexes or keys of null items; empty if items cannot be null."""
    null_rows: str = ""
    """Name of the field with the indexes of the rows without a value in a column; empty if each row has one."""
    # Attributes instead of properties, because each call reads them for each of its fields: 4 us for ten fields.
    label: str = field(init=False, repr=False, compare=False)
    """Name of the field in errors and in a client's answers: that in the model, or else that in the message."""
    needs_value: bool = field(init=False, repr=False, compare=False)
    """True if a message without the field is invalid."""
    is_null_if_absent: bool = field(init=False, repr=False, compare=False)
    """True if a message without the field means null, because it cannot express null in another way."""
    is_singular: bool = field(init=False, repr=False, compare=False)
    """True for a single value. Only such a field has presence."""
    is_repeated: bool = field(init=False, repr=False, compare=False)
    is_map: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        derived = {
            "label": self.model_name or self.name,
            "needs_value": self.required and not self.nullable,
            "is_null_if_absent": self.required and self.nullable,
            "is_singular": self.cardinality is Cardinality.SINGULAR,
            "is_repeated": self.cardinality is Cardinality.REPEATED,
            "is_map": self.cardinality is Cardinality.MAP,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
