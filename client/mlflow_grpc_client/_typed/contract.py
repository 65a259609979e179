"""The types of a model's messages; `descriptors` reads them.

Rule of this module: it knows types, never values, and makes no call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import grpc
from _mlflow_grpc_protocol.typed_terms import Cardinality, RpcKind

from mlflow_grpc_client.errors import failure


class TypeCode(Enum):
    """The type of a single value."""

    BOOLEAN = auto()
    INTEGER = auto()
    FLOAT = auto()
    DOUBLE = auto()
    STRING = auto()
    BYTES = auto()
    ENUM = auto()
    TIMESTAMP = auto()
    """google.protobuf.Timestamp."""
    JSON = auto()
    """google.protobuf.Value."""
    RECORD = auto()
    WRAPPER = auto()
    """A message around a list, a map or a nullable value."""
    TENSOR = auto()
    UNION = auto()
    """A message with a oneof."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """The full type of a single value."""

    code: TypeCode
    bounds: tuple[int, int] = (0, 0)
    """Smallest and largest integer."""
    enum_numbers: Mapping[str, int] = field(default_factory=dict)
    """Numbers of enum values by their names in the model."""
    enum_names: Mapping[int, str] = field(default_factory=dict)
    """The reverse of `enum_numbers`."""
    record: "Record | None" = None
    """The fields of a message: a record, a union, a wrapper or a tensor."""

    @property
    def message(self) -> "Record":
        """The fields of a message type."""
        return self.record or Record("")

    @property
    def content(self) -> "Field":
        """The field inside a wrapper."""
        (content,) = self.message.fields.values()
        return content


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message."""

    name: str
    """The name in protobuf."""
    model_name: str
    """The name in the model; empty for an unnamed column."""
    number: int
    type: ValueType
    cardinality: Cardinality
    has_presence: bool
    """True if a field that is absent differs from an empty field."""
    null_flag: str = ""
    """Name of the boolean field that marks a null list or map; empty if there is no such field."""
    null_items: str = ""
    """Name of the field with the indexes or keys of null items; empty if items cannot be null."""

    @property
    def label(self) -> str:
        """The key of this field in an answer."""
        return self.model_name or self.name

    @property
    def is_nullable_json(self) -> bool:
        """True if null is a value of this field, because any JSON value is."""
        return self.type.code is TypeCode.JSON and self.cardinality is Cardinality.SINGULAR

    @property
    def accepts_dicts(self) -> bool:
        """True if a dict can be the value of this field."""
        if self.cardinality is Cardinality.SINGULAR and self.type.code is TypeCode.WRAPPER:
            return self.type.content.accepts_dicts
        is_object = self.cardinality is Cardinality.SINGULAR and self.type.code in (TypeCode.RECORD, TypeCode.JSON)
        return is_object or self.cardinality is Cardinality.MAP


def type_name(column: Field) -> str:
    """The type of a field, for people."""
    code = column.type.code
    if code is TypeCode.WRAPPER:
        return type_name(column.type.content)
    name = " | ".join(column.type.enum_numbers) if code is TypeCode.ENUM else code.name.lower()
    name = f"{name} or null" if column.null_items else name
    return {Cardinality.REPEATED: f"list of {name}", Cardinality.MAP: f"map of {name}"}.get(column.cardinality, name)


@dataclass(eq=False, slots=True)
class Record:
    """The fields of a message by name. Fields are added after creation, because a message can contain itself."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    by_any_name: dict[str, Field] = field(default_factory=dict)
    """Fields by their names in the model and in protobuf. The name in the model wins if both exist."""
    required: set[str] = field(default_factory=set)
    """Protobuf names of fields that need a value."""
    defaulted: set[str] = field(default_factory=set)
    """Protobuf names of fields with a default that is not null."""
    extra: Field | None = None
    """The map with values that an output record has besides its fields."""

    def add(self, column: Field) -> None:
        """Adds a field under all its names."""
        self.fields[column.name] = column
        self.by_any_name.setdefault(column.name, column)
        if column.model_name:
            self.by_any_name[column.model_name] = column

    @property
    def sole_unnamed_field(self) -> Field | None:
        """The field of a record that has just one, without a name in the model; None for any other record."""
        columns = list(self.fields.values())
        return columns[0] if len(columns) == 1 and not columns[0].model_name else None


@dataclass(frozen=True, slots=True)
class Rpc:
    """A typed RPC of a model."""

    path: str
    request_class: Any
    request: Record
    response_class: Any
    response: Record
    error: str = ""
    """Name of the response field for a record's error; empty if there is no such field."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The typed RPCs of a model, as a server described them at some point in time."""

    label: str
    types_key: bytes
    """The result of `descriptors.types_key` for the model that this contract was read from."""
    rpcs: Mapping[RpcKind, Rpc]
    params: Field | None
    """The params field of the input messages."""
    fingerprint: str = ""
    """The server's hash of these messages; empty if it sends none."""

    @property
    def row(self) -> Record:
        """The fields of a row. A model with batches only has them by the columns of a batch.

        Raises:
            PredictError: The model takes neither records nor rows.

        """
        if RpcKind.ONE in self.rpcs or RpcKind.BATCH not in self.rpcs:
            return self.rpc(RpcKind.ONE).request
        batch = self.rpcs[RpcKind.BATCH].request
        row = Record(batch.name, required=batch.required, defaulted=batch.defaulted)
        for column in batch.fields.values():
            row.add(replace(column, cardinality=Cardinality.SINGULAR))
        return row

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
