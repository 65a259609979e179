"""The types of a model's messages, read from their descriptors and from a message mlflow_grpc.v1.Model.

Rule of this module: it knows types, never values, and makes no call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import grpc
from _mlflow_grpc_protocol.field_numbers import (
    ERROR_NUMBER,
    EXTRA_NUMBER,
    NULL_ITEMS_NUMBER,
    NULLS_NUMBER,
    PARAMS_NUMBER,
)
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from mlflow_grpc_client.errors import failure

SERVICE = "model_grpc_service.ModelgRPCService"

ERROR_MESSAGE = "model_grpc_service.error"


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


class Cardinality(Enum):
    """The number of values in a field."""

    SINGULAR = auto()
    REPEATED = auto()
    MAP = auto()


_SCALARS = {
    FieldDescriptor.TYPE_BOOL: TypeCode.BOOLEAN,
    FieldDescriptor.TYPE_FLOAT: TypeCode.FLOAT,
    FieldDescriptor.TYPE_DOUBLE: TypeCode.DOUBLE,
    FieldDescriptor.TYPE_STRING: TypeCode.STRING,
    FieldDescriptor.TYPE_BYTES: TypeCode.BYTES,
}
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_WELL_KNOWN = {"google.protobuf.Timestamp": TypeCode.TIMESTAMP, "google.protobuf.Value": TypeCode.JSON}


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
    """Whether a field that is absent differs from an empty field."""
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
        """Whether null is a value of this field, because any JSON value is."""
        return self.type.code is TypeCode.JSON and self.cardinality is Cardinality.SINGULAR

    @property
    def accepts_dicts(self) -> bool:
        """Whether a dict can be the value of this field."""
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
    """Protobuf names of required fields, as far as a schema marks them."""
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
    source: bytes
    """The result of `type_source` for the model that this contract was read from."""
    rpcs: Mapping[str, Rpc]
    """RPCs by the end of their names: predict, predict_batch, predict_many, predict_stream."""
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
        if "predict" in self.rpcs or "predict_batch" not in self.rpcs:
            return self.rpc("predict").request
        batch = self.rpcs["predict_batch"].request
        row = Record(batch.name, required=batch.required, defaulted=batch.defaulted)
        for column in batch.fields.values():
            row.add(replace(column, cardinality=Cardinality.SINGULAR))
        return row

    def rpc(self, name: str) -> Rpc:
        """The RPC whose name ends in `name`.

        Raises:
            PredictError: UNIMPLEMENTED, the model has no such RPC.

        """
        if name not in self.rpcs:
            advice = _ALTERNATIVES.get(name, "") if name != "predict" or "predict_batch" in self.rpcs else ""
            message = (
                f"The model {self.label} has no typed RPC {name}. It has: {', '.join(self.rpcs)}. {advice}".strip()
            )
            raise failure(grpc.StatusCode.UNIMPLEMENTED, message)
        return self.rpcs[name]


_ALTERNATIVES = {
    "predict": "Its answer to one record may have any number of rows: give it in a list.",
    "predict_batch": "It takes no rows in columns: give one record at a time.",
    "predict_many": "Client.stream takes JSON payloads.",
    "predict_stream": "Call predict for the whole answer.",
}
"""What to do in place of a call to an RPC that a model does not have."""

_RPC_NAMES = ("predict", "predict_batch", "predict_many", "predict_stream")


def type_source(model: Any) -> bytes:
    """The parts of a message mlflow_grpc.v1.Model that define its typed messages; equal bytes mean equal types."""
    parts = type(model)(
        input=model.input, output=model.output, params=model.params, rpcs=model.rpcs, contract=model.contract
    )
    parts.names.update(model.names)
    parts.wrappers.extend(model.wrappers)
    data: bytes = parts.SerializeToString(deterministic=True)
    return data


def label_of(model: Any) -> str:
    """`name/version`, or `name` without a version, for a message mlflow_grpc.v1.Model."""
    return f"{model.name}/{model.version}" if model.version else str(model.name)


def check_typed(model: Any) -> None:
    """Checks that the model of a message mlflow_grpc.v1.Model has typed RPCs now.

    Raises:
        PredictError: It has none; the message says why.

    """
    label, state = label_of(model), model.State.Name(model.state) if model.state in model.State.values() else ""
    if state == "FAILED":
        raise failure(grpc.StatusCode.FAILED_PRECONDITION, f"The model {label} could not be loaded: {model.error}.")
    if state != "READY":
        raise failure(grpc.StatusCode.UNAVAILABLE, f"The model {label} is not ready: {state or model.state}.")
    if not model.rpcs:
        raise failure(grpc.StatusCode.UNIMPLEMENTED, f"The model {label} has no endpoint.")
    if not any(map(_typed_name, model.rpcs)):
        reason = (
            "has no typed RPC on this server, or not yet"
            if model.HasField("input")
            else "has no signature, so no types"
        )
        message = f"The model {label} {reason}: use client.predict(data, model={label!r})."
        raise failure(grpc.StatusCode.UNIMPLEMENTED, message)


def contract_of(model: Any, pool: DescriptorPool) -> Contract:
    """The contract of a model that has typed RPCs; see `check_typed`.

    Raises:
        KeyError: The pool lacks a message of the model.

    """
    reader = _DescriptorReader(model)
    rpcs = {}
    for rpc in model.rpcs:
        if name := _typed_name(rpc):
            request, response = (pool.FindMessageTypeByName(name) for name in (rpc.request_type, rpc.response_type))
            rpcs[name] = Rpc(
                rpc.path,
                message_factory.GetMessageClass(request),
                reader.record(request),
                message_factory.GetMessageClass(response),
                reader.record(response),
                next((descriptor.name for descriptor in response.fields if _is_error(descriptor)), ""),
            )
    return Contract(label_of(model), type_source(model), rpcs, reader.params, model.contract)


def _typed_name(rpc: Any) -> str:
    """The end of a typed RPC's name; empty for any other RPC."""
    is_typed = rpc.path.startswith(f"/{SERVICE}/")
    return next((name for name in _RPC_NAMES if is_typed and rpc.path.endswith(f"_{name}")), "")


class _DescriptorReader:
    """Reads the descriptors of a model's messages."""

    def __init__(self, model: Any) -> None:
        self._names = dict(model.names)
        self._wrappers = frozenset(model.wrappers)
        self._named_by = _record_messages(model)
        self._with_params = {rpc.request_type for rpc in model.rpcs} if model.HasField("params") else set()
        self._records: dict[str, Record] = {}
        self.params: Field | None = None

    def record(self, descriptor: Descriptor) -> Record:
        """The model's fields of a message. Fields for params, errors and nulls are not among them."""
        if descriptor.full_name not in self._records:
            self._records[descriptor.full_name] = record = Record(descriptor.full_name)
            for member in descriptor.fields:
                column = self._field(member, descriptor)
                if member.number == PARAMS_NUMBER and descriptor.full_name in self._with_params:
                    self.params = column
                elif member.number == EXTRA_NUMBER:
                    record.extra = column
                elif member.number < NULLS_NUMBER and not _is_error(member):
                    record.add(column)
        return self._records[descriptor.full_name]

    def _field(self, member: FieldDescriptor, parent: Descriptor) -> Field:
        cardinality = Cardinality.REPEATED if _is_repeated(member) else Cardinality.SINGULAR
        value = member
        if member.message_type is not None and member.message_type.GetOptions().map_entry:
            cardinality, value = Cardinality.MAP, member.message_type.fields_by_name["value"]
        name = self._names.get(f"{self._named_by.get(parent.full_name, parent.full_name)}.{member.name}", member.name)
        nulls = parent.fields_by_number.get(NULLS_NUMBER + member.number)
        null_flag = nulls.name if nulls is not None and not _is_repeated(nulls) else ""
        items = parent.fields_by_number.get(NULL_ITEMS_NUMBER + member.number)
        null_items = items.name if items is not None and cardinality is not Cardinality.SINGULAR else ""
        return Field(
            member.name, name, member.number, self._type(value), cardinality, member.has_presence, null_flag, null_items
        )

    def _type(self, member: FieldDescriptor) -> ValueType:
        if member.type in _INTEGERS:
            return ValueType(TypeCode.INTEGER, bounds=_INTEGERS[member.type])
        if member.enum_type is not None:
            names = self._enum_names(member.enum_type)
            numbers = {name: number for number, name in names.items()}
            return ValueType(TypeCode.ENUM, enum_numbers=numbers, enum_names=names)
        if member.message_type is None:
            return ValueType(_SCALARS[member.type])
        return self._message(member.message_type)

    def _enum_names(self, enum: EnumDescriptor) -> dict[int, str]:
        """The names by number, without the zero that protobuf requires."""
        names = {value.number: value.name for value in enum.values if value.number}
        return {number: self._names.get(f"{enum.file.package}.{name}", name) for number, name in names.items()}

    def _message(self, descriptor: Descriptor) -> ValueType:
        if code := _WELL_KNOWN.get(descriptor.full_name):
            return ValueType(code)
        if descriptor.full_name in self._wrappers:
            code = TypeCode.TENSOR if "shape" in descriptor.fields_by_name else TypeCode.WRAPPER
        else:
            code = TypeCode.UNION if "value" in descriptor.oneofs_by_name else TypeCode.RECORD
        return ValueType(code, record=self.record(descriptor))


def _record_messages(model: Any) -> dict[str, str]:
    """Messages with the columns of a batch or stream, and the message of a single record that names these columns."""
    typed = [rpc for rpc in model.rpcs if _typed_name(rpc)]
    single = next((rpc for rpc in model.rpcs if rpc.path.endswith("_predict")), None)
    messages = {}
    for rpc in typed:
        messages[rpc.request_type] = (single or rpc).request_type
        messages[rpc.response_type] = (single or rpc).response_type
    return messages


def _is_error(member: FieldDescriptor) -> bool:
    message = member.message_type.full_name if member.message_type is not None else ""
    return member.number == ERROR_NUMBER and message == ERROR_MESSAGE


def _is_repeated(member: FieldDescriptor) -> bool:
    # protobuf 7 warns about `label`, and protobuf 5 has no `is_repeated`.
    repeated: Any = getattr(member, "is_repeated", None)
    label: Any = getattr(member, "label", None) if repeated is None else None
    return label == FieldDescriptor.LABEL_REPEATED if repeated is None else bool(repeated)
