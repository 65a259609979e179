"""Protobuf messages out of contracts: one file of messages for all models of a server, and how values stand in them.

Rule of this module: everything that a message looks like is decided here, once. Descriptors are made for protobuf and
shapes beside them for those who fill messages and read them (`mlflow_grpc.payload.typed`).

Choices: a single value has presence (`optional`), so that what is left out is not zero and a required field that is
missing is found out. A list or map has none where leaving it out means the same as an empty one; where it does not, it
is wrapped in a message. Lists of lists and values that may be null are wrapped too.
"""

import json
from dataclasses import replace
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from mlflow_grpc.contract.names import Scope
from mlflow_grpc.contract.shapes import (
    Array,
    Batch,
    Boxed,
    Column,
    Message,
    ModelMessages,
    OneOf,
    Plain,
    Rows,
    Shape,
    Slot,
    Timestamp,
    Value,
    Words,
)
from mlflow_grpc.contract.types import (
    AnyValue,
    Contract,
    Enumeration,
    Field,
    Kind,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
    Union,
)

PACKAGE = "model_grpc_service"
FILE = "model_service.proto"
SERVICE = "ModelgRPCService"

HEADER = "The typed RPCs of the models of a server, made by `mlflow-grpc proto` from their signatures and schemas."

OWN_MESSAGES = ("empty", "model", "model_collection", "error", "field_violation")
"""Names of the messages that belong to no model (`mlflow_grpc.contract.service`)."""

PARAMS_NUMBER = 1000
"""Of the field that holds a model's params: far from the columns, whose numbers grow."""

ERROR_NUMBER = 1001
"""Of the field that, in a stream, holds why there is no answer."""

NULLS_NUMBER = 100_000
"""What is added to the number of a column for that of the field with its nulls."""

Proto = FieldDescriptorProto

_SCALARS: dict[Kind, "Proto.Type.ValueType"] = {
    Kind.BOOLEAN: Proto.TYPE_BOOL,
    Kind.INTEGER: Proto.TYPE_INT32,
    Kind.LONG: Proto.TYPE_INT64,
    Kind.FLOAT: Proto.TYPE_FLOAT,
    Kind.DOUBLE: Proto.TYPE_DOUBLE,
    Kind.STRING: Proto.TYPE_STRING,
    Kind.BINARY: Proto.TYPE_BYTES,
}
_TENSORS: dict[str, tuple[str, "Proto.Type.ValueType"]] = {
    "float64": ("double", Proto.TYPE_DOUBLE),
    "float32": ("float", Proto.TYPE_FLOAT),
    "float16": ("float", Proto.TYPE_FLOAT),
    "int64": ("int64", Proto.TYPE_INT64),
    **dict.fromkeys(("int32", "int16", "int8"), ("int32", Proto.TYPE_INT32)),
    "uint64": ("uint64", Proto.TYPE_UINT64),
    **dict.fromkeys(("uint32", "uint16", "uint8"), ("uint32", Proto.TYPE_UINT32)),
    "bool": ("bool", Proto.TYPE_BOOL),
}
_WORDS = ("string", Proto.TYPE_STRING)  # Of every other dtype: str, object.
_BYTES = ("bytes", Proto.TYPE_BYTES)


class FileMaker:
    """Makes the messages of models, one after the other, in one file."""

    def __init__(self) -> None:
        self.file = FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
        self._bases = Scope(*OWN_MESSAGES)
        self._taken = Scope(*OWN_MESSAGES, SERVICE)
        self.comments: dict[tuple[str, str], str] = {("", ""): HEADER}
        """What is said of messages and their fields; see `mlflow_grpc.contract.proto_text`."""
        self._base = ""
        self._known: dict[Any, Any] = {}

    def add(self, name: str, contract: Contract, *, streams: bool = False) -> ModelMessages:
        """Makes the messages of a model whose inputs are known.

        Args:
            name: What it is called.
            contract: What it takes and gives.
            streams: Whether it gives answers part by part.

        """
        self._base, self._known = self._bases.name(name, "model"), {}
        inputs = self._root("input", contract.inputs, "value")
        params = self._message(contract.params, "params") if contract.params is not None else None
        outputs = self._root("output", contract.outputs, "prediction")
        rows = self._rows("inputs", contract.inputs, inputs)
        answers = self._rows("outputs", contract.outputs, outputs) if rows is not None else None
        params_field = ""
        if params is not None:
            params_field = Scope(*(slot.name for slot in inputs.slots)).name("params", "params")
            for message in (inputs.name, *([rows.name] if rows is not None else [])):
                _add_field(self._descriptor(message), params_field, PARAMS_NUMBER, params, "one")
                self.comments[message, params_field] = "Params of the model; what is left out has its default."
        error_field = Scope(*(slot.name for slot in outputs.slots)).name("error", "error")
        _add_field(self._descriptor(outputs.name), error_field, ERROR_NUMBER, Message("error"), "one")
        self.comments[outputs.name, error_field] = (
            f"Set in a stream only, by {self._base}_predict_many, in the place of a record that failed."
        )
        batch = Batch(rows, answers) if rows is not None and answers is not None else None
        return ModelMessages(self._base, inputs, outputs, params, params_field, error_field, batch, streams)

    def _descriptor(self, name: str) -> DescriptorProto:
        return next(each for each in self.file.message_type if each.name == name)

    def _rows(self, role: str, part: Record | Tensor | None, row: Message) -> Rows | None:
        """The message for any number of rows, in columns; None for what has no rows."""
        kinds = [each.type for each in part.fields] if isinstance(part, Record) else [part]
        if not row.slots or any(isinstance(kind, Tensor) and kind == row_of(kind) for kind in kinds):
            return None
        rows = Rows(self._taken.name(f"{self._base}_{role}", role))
        descriptor = self.file.message_type.add(name=rows.name)
        self.comments[rows.name, ""] = "Rows, in columns: each field has an entry for each row."
        scope = Scope(*(slot.name for slot in row.slots))
        for slot in row.slots:
            whole = isinstance(slot.shape, Array)
            kind = slot.source.type
            shape = self._boxed(kind, slot.name) if isinstance(kind, ListOf | MapOf) else slot.shape
            column = replace(slot, shape=shape, form="one" if whole else "list")
            _add_field(descriptor, slot.name, slot.number, shape, column.form)
            self.comments[rows.name, slot.name] = self.comments[row.name, slot.name]
            nulls = ""
            if not whole and (slot.source.nullable or not slot.source.required):
                nulls = scope.name(f"{slot.name}_nulls", "nulls")
                _add_field(descriptor, nulls, NULLS_NUMBER + slot.number, Plain(Proto.TYPE_UINT64), "list")
                self.comments[rows.name, nulls] = (
                    f"The rows, counted from 0, that have no {slot.name}: what stands there is of no meaning."
                )
            rows.columns.append(Column(column, nulls))
        return rows

    def _root(self, role: str, part: Record | Tensor | None, only: str) -> Message:
        """The message for a whole input or output of one row."""
        if isinstance(part, Record):
            rows = [replace(each, type=row_of(each.type)) for each in part.fields]
            return self._message(Record(part.name, rows, part.description), role, only)
        kind = AnyValue() if part is None else row_of(part)
        return self._message(Record(role, [Field(only, kind)]), role)

    def _message(self, record: Record, role: str, only: str = "") -> Message:
        if record in self._known:
            found: Message = self._known[record]
            return found
        message = Message(self._taken.name(f"{self._base}_{role}", role))
        self._known[record] = message
        descriptor = self.file.message_type.add(name=message.name)
        self.comments[message.name, ""] = record.description
        scope = Scope()
        single = only if len(record.fields) == 1 else ""
        for number, each in enumerate(record.fields, start=1):
            name = scope.name(each.name or single or f"column_{number - 1}", f"field_{number}")
            shape, form = self._placed(each, name)
            message.slots.append(Slot(name, each, shape, form, number))
            _add_field(descriptor, name, number, shape, form)
            self.comments[message.name, name] = _words(each, name, shape)
        return message

    def _placed(self, each: Field, name: str) -> tuple[Shape, str]:
        """How a field holds its value; a list or map without which means something else than an empty one is boxed."""
        shape, form = self._formed(each.type, name)
        if form != "one" and (each.nullable or not (each.required or each.default in ([], {}))):
            return self._boxed(each.type, name), "one"
        return shape, form

    def _formed(self, kind: Type, name: str) -> tuple[Shape, str]:
        if isinstance(kind, ListOf):
            return self._item(kind.items, kind.nullable, name), "list"
        if isinstance(kind, MapOf):
            return self._item(kind.values, kind.nullable, name), "map"
        return self._shape(kind, name), "one"

    def _item(self, kind: Type, nullable: bool, name: str) -> Shape:
        """A value of a list or map, which can be neither a list nor absent."""
        if nullable and not isinstance(kind, AnyValue):
            return self._boxed(kind, name, null=True)
        return self._boxed(kind, name) if isinstance(kind, ListOf | MapOf) else self._shape(kind, name)

    def _boxed(self, kind: Type, name: str, *, null: bool = False) -> Boxed:
        key = ("boxed", kind, null)
        if key not in self._known:
            is_one = null or not isinstance(kind, ListOf | MapOf)
            message = self._taken.name(f"{self._base}_{name}_{'value' if is_one else 'values'}", "values")
            descriptor = self.file.message_type.add(name=message)
            # Reserved before what it holds is made, which may come back to it.
            source = Field("value" if is_one else "values", kind, required=False)
            if null:
                shape, form = self._item(kind, False, name), "one"
            else:
                shape, form = self._formed(kind, name)
            _add_field(descriptor, source.name, 1, shape, form)
            self._known[key] = Boxed(message, Slot(source.name, source, shape, form, 1))
        found: Boxed = self._known[key]
        return found

    def _shape(self, kind: Type, name: str) -> Shape:
        match kind:
            case Scalar(kind=Kind.DATETIME):
                return Timestamp()
            case Scalar():
                return Plain(_SCALARS[kind.kind], kind.kind, kind.format)
            case Enumeration():
                return self._enum(kind)
            case Record() if kind.fields:
                return self._message(kind, kind.name or name)
            case Tensor():
                return self._array(kind)
            case Union():
                return self._union(kind, name)
            case ListOf() | MapOf():
                return self._boxed(kind, name)
            case AnyValue() | Record():
                return Value()

    def _enum(self, kind: Enumeration) -> Words:
        if kind not in self._known:
            name = self._taken.name(f"{self._base}_{kind.name}", "enum")
            enum = EnumDescriptorProto(name=name)
            scope = Scope()  # Values stand in the scope of the package, so each has the enum's name before it.
            for number, word in enumerate(("unspecified", *kind.values)):
                value = f"{name}_{scope.name(word, 'value')}".upper()
                enum.value.add(name=value, number=number)
                self.comments[name, value] = json.dumps(word, ensure_ascii=False) if number else "None of them."
            self.file.enum_type.append(enum)
            self._known[kind] = Words(name, kind.values)
        found: Words = self._known[kind]
        return found

    def _array(self, tensor: Tensor) -> Shape:
        word, kind = _element(tensor.dtype)
        if not tensor.shape:
            return Plain(kind)
        key = ("array", word)
        if key not in self._known:
            name = self._taken.name(f"{self._base}_{word}_tensor", "tensor")
            descriptor = self.file.message_type.add(name=name)
            _add_field(descriptor, "data", 1, Plain(kind), "list")
            _add_field(descriptor, "shape", 2, Plain(Proto.TYPE_INT64), "list")
            self._known[key] = name
        return Array(self._known[key], tensor.dtype, tensor.shape, kind)

    def _union(self, union: Union, name: str) -> OneOf:
        if union not in self._known:
            message = self._taken.name(f"{self._base}_{name}_union", "union")
            descriptor = self.file.message_type.add(name=message)
            descriptor.oneof_decl.add(name="value")
            scope, alternatives = Scope("value"), []
            for number, kind in enumerate(union.alternatives, start=1):
                shape = self._shape(kind, f"{name}_{number}")
                field_name = scope.name(f"{_word(kind)}_value", "value")
                _add_field(descriptor, field_name, number, shape, "one", oneof=0)
                alternatives.append((field_name, shape))
            self._known[union] = OneOf(message, tuple(alternatives))
        found: OneOf = self._known[union]
        return found


def _words(each: Field, name: str, shape: Shape) -> str:
    """What a comment says of a field."""
    said = [each.description]
    if each.name != name:
        said.append(f"In the model: {json.dumps(each.name, ensure_ascii=False)}." if each.name else "")
    said.append("Required." if each.required and not each.nullable else "")
    if not each.required and each.default is not None:
        said.append(f"Default: {json.dumps(each.default, ensure_ascii=False)}.")
    if isinstance(shape, Timestamp):
        said.append("A point in time, in UTC.")
    elif isinstance(shape, Plain) and shape.format:
        said.append(f"Format: {shape.format}.")
    elif isinstance(shape, Array):
        said.append(f"{shape.dtype}, of the shape {list(shape.shape)}; -1 is any size.")
    return " ".join(filter(None, said))


def row_of(kind: Type) -> Type:
    """What one row of a column is: a tensor without the size of its batch, anything else itself."""
    return Tensor(kind.dtype, kind.shape[1:]) if isinstance(kind, Tensor) and kind.shape[:1] == (-1,) else kind


def _element(dtype: str) -> tuple[str, "Proto.Type.ValueType"]:
    return _BYTES if dtype.startswith(("bytes", "|S", "S")) else _TENSORS.get(dtype, _WORDS)


def _word(kind: Type) -> str:
    match kind:
        case Scalar():
            return kind.format or kind.kind.value
        case Enumeration() | Record():
            return kind.name
        case _:
            return type(kind).__name__.lower().removesuffix("of")


def _add_field(
    descriptor: DescriptorProto, name: str, number: int, shape: Shape, form: str, *, oneof: int | None = None
) -> None:
    made = descriptor.field.add(name=name, number=number, label=Proto.LABEL_OPTIONAL)
    if form == "map":
        entry = descriptor.nested_type.add(
            name=f"{''.join(part[:1].upper() + part[1:] for part in name.split('_'))}Entry"
        )
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Proto.LABEL_OPTIONAL, type=Proto.TYPE_STRING)
        _set_type(entry.field.add(name="value", number=2, label=Proto.LABEL_OPTIONAL), shape)
        made.label, made.type = Proto.LABEL_REPEATED, Proto.TYPE_MESSAGE
        made.type_name = f".{PACKAGE}.{descriptor.name}.{entry.name}"
        return
    _set_type(made, shape)
    if form == "list":
        made.label = Proto.LABEL_REPEATED
    elif oneof is not None:
        made.oneof_index = oneof
    elif made.type != Proto.TYPE_MESSAGE:
        # What `optional` is in a descriptor: a oneof of its own (protobuf's docs/implementing_proto3_presence.md).
        made.proto3_optional = True
        made.oneof_index = len(descriptor.oneof_decl)
        descriptor.oneof_decl.add(name=f"_{name}")


def _set_type(made: FieldDescriptorProto, shape: Shape) -> None:
    match shape:
        case Plain():
            made.type = shape.type
        case Words():
            made.type, made.type_name = Proto.TYPE_ENUM, f".{PACKAGE}.{shape.enum}"
        case Timestamp():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{timestamp_pb2.Timestamp.DESCRIPTOR.full_name}"
        case Value():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{struct_pb2.Value.DESCRIPTOR.full_name}"
        case Message():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{shape.name}"
        case Array() | OneOf() | Boxed():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{shape.message}"
