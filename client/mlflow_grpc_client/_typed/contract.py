"""The typed RPCs of a model; `descriptors` reads them.

Rule of this module: it knows the shapes of messages, never values, and makes no call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import grpc
from _mlflow_grpc_protocol.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from _mlflow_grpc_protocol.typed_terms import Cardinality, RpcKind
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc_client.errors import failure


def type_name(shape: Shape) -> str:
    """The type of a value, for people: by the name that it has in the .proto file."""
    match shape:
        case ScalarShape():
            return Proto.Type.Name(shape.type).removeprefix("TYPE_").lower()
        case EnumShape():
            return " | ".join(shape.numbers)
        case WrapperShape():
            return field_type_name(shape.content)
        case MessageShape():
            return shape.name
        case _:
            return _OTHER_TYPES[type(shape)]


_OTHER_TYPES = {TimestampShape: "timestamp", ValueShape: "json", TensorShape: "tensor", OneofShape: "union"}


def field_type_name(field: FieldShape) -> str:
    """The type of a field, for people."""
    name = f"{type_name(field.shape)} or null" if field.null_items else type_name(field.shape)
    return {Cardinality.REPEATED: f"list of {name}", Cardinality.MAP: f"map of {name}"}.get(field.cardinality, name)


def accepts_dicts(field: FieldShape) -> bool:
    """Returns True if a dict can be the value of a field."""
    if field.is_singular and isinstance(field.shape, WrapperShape):
        return accepts_dicts(field.shape.content)
    return field.is_map or (field.is_singular and isinstance(field.shape, MessageShape | ValueShape))


def is_nullable_json(field: FieldShape) -> bool:
    """Returns True if null is a value of a field, because any JSON value is."""
    return field.is_singular and isinstance(field.shape, ValueShape)


@dataclass(frozen=True, slots=True)
class Rpc:
    """A typed RPC of a model."""

    path: str
    request_class: Any
    request: MessageShape
    response_class: Any
    response: MessageShape
    error: str = ""
    """Name of the response field for a record's error; empty if there is no such field."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The typed RPCs of a model, as a server described them at some point in time."""

    label: str
    types_key: bytes
    """The result of `descriptors.types_key` for the model that this contract was read from."""
    rpcs: Mapping[RpcKind, Rpc]
    params: FieldShape | None
    """The params field of the input messages."""
    fingerprint: str = ""
    """The server's hash of these messages; empty if it sends none."""

    @property
    def row(self) -> MessageShape:
        """The fields of a row. A model with batches only has them by the columns of a batch.

        Raises:
            PredictError: The model takes neither records nor rows.

        """
        if RpcKind.ONE in self.rpcs or RpcKind.BATCH not in self.rpcs:
            return self.rpc(RpcKind.ONE).request
        batch = self.rpcs[RpcKind.BATCH].request
        return MessageShape(batch.name, [replace(column, cardinality=Cardinality.SINGULAR) for column in batch.fields])

    def rpc(self, kind: RpcKind) -> Rpc:
        """The RPC of a kind.

        Raises:
            PredictError: UNIMPLEMENTED, the model has no such RPC.

        """
        if kind not in self.rpcs:
            takes_rows = RpcKind.BATCH in self.rpcs
            advice = "" if kind is RpcKind.ONE and not takes_rows else _ALTERNATIVES[kind]
            message = f"The model {self.label} has no typed RPC {kind}. It has: {', '.join(self.rpcs)}. {advice}"
            raise failure(grpc.StatusCode.UNIMPLEMENTED, message.strip())
        return self.rpcs[kind]


_ALTERNATIVES = {
    RpcKind.ONE: "Its answer to one record may have any number of rows: give it in a list.",
    RpcKind.BATCH: "It takes no rows in columns: give one record at a time.",
    RpcKind.MANY: "Client.stream takes JSON payloads.",
    RpcKind.STREAM: "Call predict for the whole answer.",
}
"""What to do in place of a call to an RPC that a model does not have."""
