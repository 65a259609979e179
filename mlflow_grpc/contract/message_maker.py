"""Messages for the types of a model: descriptors for protobuf, and shapes for the code that fills and reads them.

Rules of this module:

- A single value has presence (`optional`), so that a missing required field is noticed and not mistaken for zero.
- A list or map has no presence if leaving it out means the same as an empty one. Otherwise it is wrapped in a message.
- Lists of lists and values that may be null are wrapped too.
"""

import copy
import json
from dataclasses import replace
from typing import Self

from _mlflow_grpc_protocol.field_numbers import EXTRA_NUMBER
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
from _mlflow_grpc_protocol.typed_terms import Cardinality
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.comments import field_comment
from mlflow_grpc.contract.fields import PACKAGE, add_field, add_null_items, add_nulls
from mlflow_grpc.contract.lockfile.keys import alternative_keys, field_keys, type_word, unique_keys
from mlflow_grpc.contract.lockfile.numbering import ContractNumbering, ReservedNames, TypeKey
from mlflow_grpc.contract.names import UNSPECIFIED, FileScope, enum_value_name
from mlflow_grpc.contract.shapes import SCALARS, ModelNames, element, field_shape, needs_wrapper
from mlflow_grpc.contract.types import (
    AnyValue,
    Contract,
    DataType,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
    Union,
    row_of,
    types_with_undeclared_nulls,
)


class MessageMaker:
    """Makes the messages of a model, each type once."""

    def __init__(
        self,
        file: FileDescriptorProto,
        scope: FileScope,
        reserved: ReservedNames,
        contract: Contract,
        comments: dict[tuple[str, str], str],
    ) -> None:
        """Starts without a message.

        Args:
            file: The file that the messages are added to.
            scope: Names in use in the file.
            reserved: Names and lock of the model.
            contract: Inputs and outputs of the model.
            comments: Comments of all messages, fields and values; those of the model are added.

        """
        self.file = file
        self.comments = comments
        self.model_names = ModelNames()
        self.derived = reserved.derived
        self.numbering = ContractNumbering(reserved, scope)
        self._undeclared_nulls = types_with_undeclared_nulls(contract)
        self.in_answer = False
        self._messages: dict[TypeKey, MessageShape] = {}
        self._wrappers: dict[TypeKey, WrapperShape] = {}
        self._enums: dict[TypeKey, EnumShape] = {}
        self._oneofs: dict[TypeKey, OneofShape] = {}
        self._tensors: set[str] = set()

    def for_answers(self) -> Self:
        """A maker for the messages of answers, which knows all messages of this one.

        Lists and maps of an answer can be null, whatever the contract declares.
        """
        maker = copy.copy(self)
        maker.in_answer = True
        return maker

    def descriptor(self, name: str) -> DescriptorProto:
        """The descriptor of a message that has been made."""
        return next(message for message in self.file.message_type if message.name == name)

    def root(self, name: str, root: Record | Tensor | None, role: str, sole_name: str) -> MessageShape:
        """Makes the message for the input, output or chunk of a single row.

        Args:
            name: Name of the message, without the prefix of the model.
            root: Type of the whole batch; None if it is unknown.
            role: Role of the message in the lock; empty for a new one.
            sole_name: Name of the only field if that has no name in the model.

        """
        if isinstance(root, Record):
            fields = [replace(field, type=row_of(field.type)) for field in root.fields]
            return self.message(replace(root, fields=fields), name, role, sole_name)
        column = Field(sole_name, AnyValue() if root is None else row_of(root))
        message = self.message(Record(name, [column]), name, role)
        self.model_names.names[f"{PACKAGE}.{message.name}.{message.fields[0].name}"] = ""
        return message

    def message(self, record: Record, name: str, role: str, sole_name: str = "") -> MessageShape:
        """Makes the message for a record; see `root` for the arguments."""
        key = self.numbering.key("record", record, role)
        if key in self._messages:
            return self._messages[key]
        message = MessageShape(self.numbering.name(key, name, "message"), is_closed=record.is_closed)
        self._messages[key] = message
        descriptor = self.file.message_type.add(name=message.name)
        self.comments[message.name, ""] = record.description
        numbers, keys = self.numbering.fields_of(message.name), field_keys(record.fields, sole_name)
        if record.open:
            self._add_extra(message, descriptor)
        beside = ("error" if self.in_answer else "params") if sole_name else ""
        numbers.expect(dict(zip(keys, record.fields, strict=True)), beside)
        sole_name = sole_name if len(record.fields) == 1 else ""
        fields = {}
        for index in numbers.order(keys):
            source, lock_key = record.fields[index], keys[index]
            text = source.name or sole_name or f"column_{index}"
            is_map = isinstance(source.type, MapOf) and not needs_wrapper(source)
            field_name = numbers.name(lock_key, text, f"field_{index + 1}", is_map=is_map)
            shape, cardinality = self._field_shape(source, field_name, numbers.role(lock_key))
            fields[index] = self.add(descriptor, lock_key, field_shape(field_name, source, shape, cardinality))
            if source.name != field_name:
                self.model_names.names[f"{PACKAGE}.{message.name}.{field_name}"] = source.name
            self.comments[message.name, field_name] = field_comment(source, field_name, shape)
        if self.in_answer and not record.open:
            fields = add_nulls(descriptor, fields, numbers.nulls_field, self.comments)
        for index, field in fields.items():
            type_ = record.fields[index].type
            if isinstance(type_, ListOf | MapOf) and type_.undeclared_nulls and not field.is_singular:
                fields[index] = add_null_items(descriptor, field, numbers.null_items_field, self.comments)
        message.fields.extend(fields[index] for index in range(len(keys)))
        return message

    def add(self, descriptor: DescriptorProto, key: str, field: FieldShape, *, oneof: int | None = None) -> FieldShape:
        """Adds a field to a message, and gives it a number.

        Args:
            descriptor: The message.
            key: Key of the field in the lock.
            field: The field, without its number unless that is fixed.
            oneof: Index of the oneof that the field is in; None for a field outside of any.

        """
        text = self.numbering.type_text(field.shape, field.cardinality, presence=oneof is None)
        field = replace(field, number=self.numbering.fields_of(descriptor.name).number(key, field, text))
        add_field(descriptor, field.name, field.number, field.shape, field.cardinality, oneof=oneof)
        return field

    def wrapper(self, content: Type, name: str, role: str = "", *, null: bool = False) -> WrapperShape:
        """Makes the message around a list, a map or a value that may be null.

        Args:
            content: Type of what is in the message.
            name: Name of the field that holds the message.
            role: Role of the message in the lock; empty for a new one.
            null: True if the message is there because the value may be null.

        """
        key = self.numbering.key("wrapper", (content, null), role)
        if key in self._wrappers:
            return self._wrappers[key]
        content_name = "value" if null or not isinstance(content, ListOf | MapOf) else "values"
        message = self.numbering.name(key, f"{name}_{content_name}", "values")
        descriptor = self.file.message_type.add(name=message)
        self.model_names.wrappers.append(f"{PACKAGE}.{message}")
        numbers = self.numbering.fields_of(message)
        # The name is taken before the content is made, because the content may contain the wrapper itself.
        field_name, inner_role = numbers.name(content_name, content_name, "value"), numbers.role(content_name)
        if null:
            shape, cardinality = self._item(content, name, inner_role, nullable=False), Cardinality.SINGULAR
        else:
            shape, cardinality = self._bare_shape(content, name, inner_role)
        field = self.add(descriptor, content_name, FieldShape(field_name, content_name, shape, cardinality))
        # Inputs and outputs may share the message, so the nulls of either count.
        if cardinality is not Cardinality.SINGULAR and content in self._undeclared_nulls:
            field = add_null_items(descriptor, field, numbers.null_items_field, self.comments)
        self._wrappers[key] = WrapperShape(message, field)
        return self._wrappers[key]

    def _add_extra(self, message: MessageShape, descriptor: DescriptorProto) -> None:
        """Adds the map for values that have no field, before any field can get the map's name."""
        message.extra = self.numbering.fields_of(message.name).extra_field()
        add_field(descriptor, message.extra, EXTRA_NUMBER, ValueShape(), Cardinality.MAP)
        self.comments[message.name, message.extra] = "Values that have no field of their own, as they are in JSON."

    def _field_shape(self, source: Field, name: str, role: str) -> tuple[Shape, Cardinality]:
        if needs_wrapper(source):
            return self.wrapper(source.type, name, role), Cardinality.SINGULAR
        return self._bare_shape(source.type, name, role)

    def _bare_shape(self, type_: Type, name: str, role: str) -> tuple[Shape, Cardinality]:
        match type_:
            case ListOf():
                return self._item(type_.items, name, role, nullable=type_.nullable), Cardinality.REPEATED
            case MapOf():
                return self._item(type_.values, name, role, nullable=type_.nullable), Cardinality.MAP
            case _:
                return self._shape(type_, name, role), Cardinality.SINGULAR

    def _item(self, type_: Type, name: str, role: str, *, nullable: bool) -> Shape:
        """The shape of a value in a list or map, which can be neither a list nor null by itself."""
        if nullable and not isinstance(type_, AnyValue):
            return self.wrapper(type_, name, role, null=True)
        return self._shape(type_, name, role)

    def _shape(self, type_: Type, name: str, role: str) -> Shape:
        match type_:
            case Scalar(data_type=DataType.DATETIME):
                return TimestampShape()
            case Scalar():
                return ScalarShape(SCALARS[type_.data_type], type_.format)
            case Enumeration():
                return self._enum(type_, role)
            case Record() if type_.fields:
                return self.message(type_, type_.name or name, role)
            case Tensor():
                return self._tensor(type_)
            case Union():
                return self._oneof(type_, name, role)
            case ListOf() | MapOf():
                return self.wrapper(type_, name, role)
            case AnyValue() | Record():
                return ValueShape()

    def _enum(self, enumeration: Enumeration, role: str) -> EnumShape:
        key = self.numbering.key("enum", enumeration, role)
        if key in self._enums:
            return self._enums[key]
        name = self.numbering.name(key, enumeration.name, "enum")
        enum = EnumDescriptorProto(name=name)
        enum.value.add(name=enum_value_name(name, UNSPECIFIED), number=0)
        self.comments[name, enum.value[0].name] = "None of the values below."
        numbers = self.numbering.fields_of(name)
        for lock_key, text in zip(unique_keys(enumeration.values), enumeration.values, strict=True):
            short = numbers.name(lock_key, text, "value")
            value = enum.value.add(name=enum_value_name(name, short), number=numbers.enum_number(lock_key, short))
            self.model_names.names[f"{PACKAGE}.{value.name}"] = text
            self.comments[name, value.name] = json.dumps(text, ensure_ascii=False)
        self.file.enum_type.append(enum)
        self._enums[key] = EnumShape(
            name, {value.number: text for value, text in zip(enum.value[1:], enumeration.values, strict=True)}
        )
        return self._enums[key]

    def _tensor(self, tensor: Tensor) -> Shape:
        type_name, proto_type = element(tensor.dtype)
        if not tensor.shape:
            return ScalarShape(proto_type)
        name = self.derived[f"{type_name}_tensor"]
        if name not in self._tensors:
            self._tensors.add(name)
            descriptor = self.file.message_type.add(name=name)
            self.model_names.wrappers.append(f"{PACKAGE}.{name}")
            add_field(descriptor, "data", 1, ScalarShape(proto_type), Cardinality.REPEATED)
            add_field(descriptor, "shape", 2, ScalarShape(Proto.TYPE_INT64), Cardinality.REPEATED)
        return TensorShape(name, ScalarShape(proto_type), tensor.dtype, tensor.shape)

    def _oneof(self, union: Union, name: str, role: str) -> OneofShape:
        key = self.numbering.key("union", union, role)
        if key in self._oneofs:
            return self._oneofs[key]
        message = self.numbering.name(key, f"{name}_union", "union")
        descriptor = self.file.message_type.add(name=message)
        descriptor.oneof_decl.add(name="value")
        numbers = self.numbering.fields_of(message)
        shapes: dict[str, Shape] = {}
        for index, lock_key in enumerate(alternative_keys(union.alternatives)):
            type_ = union.alternatives[index]
            field_name = numbers.name(lock_key, f"{type_word(type_)}_value", "value")
            shape = self._shape(type_, f"{name}_{index + 1}", numbers.role(lock_key))
            self.add(descriptor, lock_key, FieldShape(field_name, "", shape), oneof=0)
            shapes[field_name] = shape
        return self._oneofs.setdefault(key, OneofShape(message, shapes))
