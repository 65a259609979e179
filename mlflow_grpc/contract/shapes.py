"""The messages of a model, by their shapes, and the protobuf types of scalars.

Rule of this module: a shape and the descriptor of the same message are made together (`mlflow_grpc.contract.messages`)
and agree. The shapes themselves are in `_mlflow_grpc_protocol.shapes`, because clients have them too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape, ProtoType, Shape
from _mlflow_grpc_protocol.typed_terms import Cardinality, RpcKind
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.types import DataType, Field, ListOf, MapOf


@dataclass(frozen=True)
class BatchShape:
    """The messages of a model for any number of rows, with a list or a tensor for each column."""

    inputs: MessageShape
    outputs: MessageShape


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


def needs_wrapper(field: Field) -> bool:
    """Returns True if a field is a list or map, and leaving it out differs from an empty one."""
    return isinstance(field.type, ListOf | MapOf) and (
        field.nullable or not (field.required or field.default in ([], {}))
    )


def field_shape(name: str, source: Field, shape: Shape, cardinality: Cardinality) -> FieldShape:
    """The shape of a field for a column, record field or param."""
    return FieldShape(
        name,
        source.name,
        shape,
        cardinality,
        required=source.required,
        nullable=source.nullable,
        has_default=source.has_default,
    )


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
