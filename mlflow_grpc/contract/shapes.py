"""How values stand in messages: what those who fill messages and read them go by.

Rule of this module: shapes are made beside the descriptors, by `mlflow_grpc.contract.messages`, and say the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.types import Field, Kind


@dataclass(frozen=True)
class Plain:
    """A scalar."""

    type: "Proto.Type.ValueType"
    kind: Kind | None = None
    """Which kind of column it is; None of an element of a tensor."""
    format: str = ""


@dataclass(frozen=True)
class Words:
    """A value of an enum; the number 0 is none of them."""

    enum: str
    values: tuple[str, ...]
    numbers: tuple[int, ...]
    """Of the values, in their order."""


@dataclass(frozen=True)
class Timestamp:
    """google.protobuf.Timestamp."""


@dataclass(frozen=True)
class Value:
    """google.protobuf.Value."""


@dataclass(frozen=True)
class Array:
    """A message of packed data and shape."""

    message: str
    dtype: str
    shape: tuple[int, ...]
    """Of one row: without the first size of a batch."""
    element: "Proto.Type.ValueType"
    """The type of its data."""


@dataclass(frozen=True)
class OneOf:
    """A message of one value in one of several fields, by name."""

    message: str
    alternatives: tuple[tuple[str, "Shape"], ...]


@dataclass(frozen=True)
class Boxed:
    """A message around a list (field values), a map (field values) or a value that may be null (field value)."""

    message: str
    content: "Slot"


@dataclass(eq=False)
class Message:
    """A message for a record."""

    name: str
    slots: list["Slot"] = field(default_factory=list)
    extra: str = ""
    """The field for what a value has beside these, a map of google.protobuf.Value; empty if it has nothing else."""
    is_closed: bool = False
    """Whether a message with a field that is none of these is refused."""


Shape = Plain | Words | Timestamp | Value | Array | OneOf | Boxed | Message


@dataclass(frozen=True)
class Slot:
    """A field of a message and what stands in it."""

    name: str
    """The field's name."""
    source: Field
    """The column, record field or param that it is for."""
    shape: Shape
    """Of the value, or of each value of a list or map."""
    form: str = "one"
    """one, list or map."""
    number: int = 0
    null: str = ""
    """The field that is true where there is no value, of a list or map that would be empty without it."""
    null_items: str = ""
    """The field with the places in a list, or the keys of a map, where there is a null; empty if there may be none."""


@dataclass(frozen=True)
class Column:
    """A field of a message for any number of rows."""

    slot: Slot
    """What stands in it: a list of a value for each row, or one tensor of all rows."""
    nulls: str = ""
    """The field with the places of the rows that have no value; empty if each row has one."""


@dataclass(eq=False)
class Rows:
    """A message for any number of rows."""

    name: str
    columns: list[Column] = field(default_factory=list)
    is_closed: bool = False
    """Whether a message with a field that is none of these is refused."""


@dataclass(frozen=True)
class Batch:
    """The messages for any number of rows of a model."""

    inputs: Rows
    outputs: Rows


@dataclass(frozen=True)
class ModelWords:
    """What the descriptors of a model's messages do not say, for clients that know nothing else."""

    names: dict[str, str] = field(default_factory=dict)
    """Full names of fields and of enum values, and the word in the model where it is another one; empty for none."""
    wrappers: list[str] = field(default_factory=list)
    """Full names of the messages that are no record of the model's: boxes and tensors."""


class RpcKind(StrEnum):
    """What an RPC does for a model; the value is the last part of its name."""

    ONE = "predict"
    BATCH = "predict_batch"
    MANY = "predict_many"
    STREAM = "predict_stream"


@dataclass(frozen=True)
class ModelMessages:
    """The messages of one model."""

    base: str
    """What its messages and RPCs begin with."""
    input: Message
    output: Message
    params: Message | None = None
    """What the field for params holds; its name is `params_field`."""
    params_field: str = ""
    error_field: str = ""
    """The field of the output that says why there is none."""
    batch: Batch | None = None
    """None if what the model takes or gives has no rows."""
    streams: bool = False
    """Whether the model gives answers part by part."""
    chunk: Message | None = None
    """The message of a part; None if that is the output."""
    refused: frozenset[RpcKind] = frozenset()
    """RPCs that the model is not to have, since they were seen to fail."""
    words: ModelWords = field(default_factory=ModelWords)
    fingerprint: str = ""
    """Another one whenever a descriptor of these messages is another one."""

    @property
    def rpcs(self) -> Iterator[RpcKind]:
        """The RPCs that the model has."""
        has = {RpcKind.BATCH: self.batch is not None, RpcKind.STREAM: self.streams}
        return (kind for kind in RpcKind if has.get(kind, True) and kind not in self.refused)
