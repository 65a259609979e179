"""Shapes of messages: the content of each field, for the code that fills and reads messages and builds descriptors.

Rule of this module: a shape and the descriptor of the same message are made together (`mlflow_grpc.contract.messages`)
and agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from _mlflow_grpc_protocol.typed_terms import Cardinality, RpcKind
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.types import DataType, Field

ProtoType: TypeAlias = "Proto.Type.ValueType"
"""Number of a field type."""


@dataclass(frozen=True)
class ScalarShape:
    """A scalar."""

    type: ProtoType
    data_type: DataType | None = None
    """The column's type; None for an element of a tensor."""
    format: str = ""


@dataclass(frozen=True)
class EnumShape:
    """An enum. The number 0 is unspecified."""

    enum: str
    values: tuple[str, ...]
    numbers: tuple[int, ...]
    """Numbers of the values, in the order of the values."""


@dataclass(frozen=True)
class TimestampShape:
    """google.protobuf.Timestamp."""


@dataclass(frozen=True)
class ValueShape:
    """google.protobuf.Value."""


@dataclass(frozen=True)
class TensorShape:
    """A message of packed data and a shape."""

    message: str
    dtype: str
    shape: tuple[int, ...]
    """Shape of a row, without the batch dimension."""
    element: ProtoType
    """Type of the data."""


@dataclass(frozen=True)
class OneofShape:
    """A message with a oneof: a field for each alternative of a union, by name."""

    message: str
    alternatives: tuple[tuple[str, "Shape"], ...]


@dataclass(frozen=True)
class WrapperShape:
    """A message around a list or map (field `values`), or around a value that may be null (field `value`)."""

    message: str
    content: "FieldShape"


@dataclass(eq=False)
class MessageShape:
    """A message for a record."""

    name: str
    fields: list["FieldShape"] = field(default_factory=list)
    extra: str = ""
    """Name of the map with the values that have no field; empty for a record that is not open."""
    is_closed: bool = False
    """True if a message with an unknown field is refused."""


Shape = ScalarShape | EnumShape | TimestampShape | ValueShape | TensorShape | OneofShape | WrapperShape | MessageShape


@dataclass(frozen=True)
class FieldShape:
    """A field of a message, and the shape of its values."""

    name: str
    """Name of the field in the message."""
    source: Field
    """The column, record field or param that the field is for."""
    shape: Shape
    """Shape of the value, or of each value of a list or map."""
    cardinality: Cardinality = Cardinality.SINGULAR
    number: int = 0
    null: str = ""
    """Name of the field that is true for a null list or map, which is otherwise the same as an empty one."""
    null_items: str = ""
    """Name of the field with the indices or keys of null items; empty if there are none."""
    # Attributes instead of properties, because each call reads them for each of its fields: 4 us for ten fields.
    is_singular: bool = field(init=False, repr=False, compare=False)
    is_repeated: bool = field(init=False, repr=False, compare=False)
    is_map: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_singular", self.cardinality is Cardinality.SINGULAR)
        object.__setattr__(self, "is_repeated", self.cardinality is Cardinality.REPEATED)
        object.__setattr__(self, "is_map", self.cardinality is Cardinality.MAP)


@dataclass(frozen=True)
class ColumnShape:
    """A field of a message for any number of rows."""

    field: FieldShape
    """A list with a value for each row, or a single tensor of all rows."""
    nulls: str = ""
    """Name of the field with the indices of rows without a value; empty if each row has one."""


@dataclass(eq=False)
class RowsShape:
    """A message for any number of rows."""

    name: str
    columns: list[ColumnShape] = field(default_factory=list)
    is_closed: bool = False
    """True if a message with an unknown field is refused."""


@dataclass(frozen=True)
class BatchShape:
    """The messages of a model for any number of rows."""

    inputs: RowsShape
    outputs: RowsShape


@dataclass(frozen=True)
class ModelNames:
    """The model's own names where descriptors differ from them, for clients that have only the descriptors."""

    names: dict[str, str] = field(default_factory=dict)
    """Name in the model, by the full name of a field or enum value; empty for a field that has no name in the model."""
    wrappers: list[str] = field(default_factory=list)
    """Full names of the messages that are not records of the model: wrappers and tensors."""


@dataclass(frozen=True)
class ModelMessages:
    """The messages of a model."""

    base: str
    """Prefix of the model's messages and RPCs."""
    input: MessageShape
    output: MessageShape
    params: MessageShape | None = None
    """Message of the params, in the field `params_field`."""
    params_field: str = ""
    error_field: str = ""
    """Name of the output's field for the error of a streamed record."""
    batch: BatchShape | None = None
    """None if the model's inputs or outputs are not rows."""
    streams: bool = False
    """True if the model answers in chunks."""
    chunk: MessageShape | None = None
    """Message of a chunk; None if a chunk is an output message."""
    refused: frozenset[RpcKind] = frozenset()
    """RPCs that the model does not get, because they failed on its example."""
    model_names: ModelNames = field(default_factory=ModelNames)
    fingerprint: str = ""
    """Hash of the messages' descriptors."""

    @property
    def rpcs(self) -> Iterator[RpcKind]:
        """The RPCs of the model."""
        has = {RpcKind.BATCH: self.batch is not None, RpcKind.STREAM: self.streams}
        return (rpc for rpc in RpcKind if has.get(rpc, True) and rpc not in self.refused)


SCALARS: dict[DataType, ProtoType] = {
    DataType.BOOLEAN: Proto.TYPE_BOOL,
    DataType.INTEGER: Proto.TYPE_INT32,
    DataType.LONG: Proto.TYPE_INT64,
    DataType.FLOAT: Proto.TYPE_FLOAT,
    DataType.DOUBLE: Proto.TYPE_DOUBLE,
    DataType.STRING: Proto.TYPE_STRING,
    DataType.BINARY: Proto.TYPE_BYTES,
}
_ELEMENTS: dict[str, tuple[str, ProtoType]] = {
    "float64": ("double", Proto.TYPE_DOUBLE),
    "float32": ("float", Proto.TYPE_FLOAT),
    "float16": ("float", Proto.TYPE_FLOAT),
    "int64": ("int64", Proto.TYPE_INT64),
    **dict.fromkeys(("int32", "int16", "int8"), ("int32", Proto.TYPE_INT32)),
    "uint64": ("uint64", Proto.TYPE_UINT64),
    **dict.fromkeys(("uint32", "uint16", "uint8"), ("uint32", Proto.TYPE_UINT32)),
    "bool": ("bool", Proto.TYPE_BOOL),
}
_STRINGS = ("string", Proto.TYPE_STRING)
_BYTES = ("bytes", Proto.TYPE_BYTES)

ELEMENTS = tuple(dict.fromkeys(name for name, _ in (*_ELEMENTS.values(), _STRINGS, _BYTES)))
"""The types that an element of a tensor can have, by their names in a .proto file."""


def element(dtype: str) -> tuple[str, ProtoType]:
    """The protobuf type for a tensor's dtype: its name in a .proto file, and its number in a descriptor.

    Every dtype that is neither numeric nor bytes, such as str and object, is a string.
    """
    return _BYTES if dtype.startswith(("bytes", "|S", "S")) else _ELEMENTS.get(dtype, _STRINGS)
