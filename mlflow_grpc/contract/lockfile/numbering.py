"""Names for the messages of a model: those in its lock, and new ones for new types.

Rule of this module: a message or enum is identified in the lock by the field that contains it. It keeps its name and
the numbers of its fields (`field_numbering`), even if the model renames its type.
"""

import re
from collections.abc import Hashable

from _mlflow_grpc_protocol.shapes import (
    EnumShape,
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
from pydantic import ValidationError

from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile.field_numbering import FieldNumbering
from mlflow_grpc.contract.lockfile.format import LockedMessage, LockedModel, MessageKind
from mlflow_grpc.contract.names import UNSPECIFIED, FileScope, enum_value_name
from mlflow_grpc.contract.shapes import ELEMENTS
from mlflow_grpc.errors import StartError

TypeKey = tuple[MessageKind, Hashable, str]
"""Identity of a message or enum: its kind, the type that it is made from, and its role in the lock."""

DERIVED_ROLES = ("inputs", "outputs", *(f"{name}_tensor" for name in ELEMENTS))
"""Messages that follow from others and are not in the lock. No type of a model gets their names."""


class ReservedNames:
    """The names of a model's messages that are fixed before the first message is made."""

    def __init__(self, base: str, file: FileScope, locked: LockedModel) -> None:
        """Takes the names.

        Args:
            base: Prefix of the names.
            file: Names in use in the file.
            locked: The model's lock.

        """
        self.locked = locked
        self.base = base
        self.full_names = {role: file.name(f"{base}_{role}", role) for role in locked.messages}
        self.derived = {role: file.name(f"{base}_{role}", role) for role in DERIVED_ROLES}
        for role, message in locked.messages.items():
            if message.message_kind == "enum":
                for name in (UNSPECIFIED, *(value.name for value in message.all_fields.values())):
                    file.take_value(enum_value_name(self.full_names[role], name))


class ContractNumbering:
    """The names and numbers of a model's messages, in use so far."""

    def __init__(self, reserved: ReservedNames, file: FileScope) -> None:
        """Starts with the model's lock.

        Args:
            reserved: Names and lock of the model.
            file: Names in use in the file.

        """
        self.locked = reserved.locked
        self.file = file
        self._base = reserved.base
        self._reserved = reserved.full_names
        self._roles = {full_name: role for role, full_name in reserved.full_names.items()}
        self._types_by_role: dict[str, Hashable] = {}
        self._first_roles: dict[tuple[MessageKind, Hashable], str] = {}
        self._messages: dict[str, FieldNumbering] = {}

    def key(self, message_kind: MessageKind, type_: Hashable, role: str) -> TypeKey:
        """Identifies the message of a type. A type may have several messages, if the lock has several.

        Args:
            message_kind: Kind of the message.
            type_: What the message is made from.
            role: Role of the message that the field has in the lock; empty for a new field.

        """
        locked = self.locked.messages.get(role)
        if (
            locked is None
            or locked.message_kind != message_kind
            or self._types_by_role.setdefault(role, type_) != type_
        ):  # fmt: skip
            role = self._first_roles.setdefault((message_kind, type_), "")
        else:
            self._first_roles.setdefault((message_kind, type_), role)
        return message_kind, type_, role

    def name(self, key: TypeKey, text: str, fallback: str) -> str:
        """Gives a full name to a message or enum that has none yet."""
        message_kind, _, role = key
        if role and role not in self._messages:  # A wrapper that contains itself is named before its shape is known.
            full_name = self._reserved[role]
        else:
            text = text if re.search(r"[A-Za-z0-9]", text) else fallback
            make_name = self.file.enum if message_kind == "enum" else self.file.name
            full_name = make_name(f"{self._base}_{text}", fallback)
            role = self._roles[full_name] = full_name.removeprefix(f"{self._base}_")
        fields = FieldNumbering(
            full_name, self.locked.messages.get(role) or LockedMessage(kind=message_kind), self.file
        )
        if role in (self.locked.input, self.locked.output):
            fields.reserve_companions(with_error=role == self.locked.output)
        self._messages[role] = fields
        return full_name

    def fields_of(self, full_name: str) -> FieldNumbering:
        """The numbering of the fields or values of a message or enum that has a name."""
        return self._messages[self._roles[full_name]]

    def type_text(self, shape: Shape, cardinality: Cardinality, *, presence: bool = True) -> str:
        """The type of a field, as the lock has it."""
        text = self._value_text(shape)
        match cardinality:
            case Cardinality.REPEATED:
                return f"repeated {text}"
            case Cardinality.MAP:
                return f"map<string, {text}>"
            case Cardinality.SINGULAR:
                return f"optional {text}" if presence and isinstance(shape, ScalarShape | EnumShape) else text

    def _value_text(self, shape: Shape) -> str:
        match shape:
            case ScalarShape():
                return Proto.Type.Name(shape.type).removeprefix("TYPE_").lower()
            case EnumShape():
                return f"enum {self._roles[shape.enum]}"
            case TimestampShape():
                return "google.protobuf.Timestamp"
            case ValueShape():
                return "google.protobuf.Value"
            case TensorShape():
                return f"tensor of {shape.message.removeprefix(f'{self._base}_').partition('_')[0]}"
            case MessageShape():
                return f"message {self._roles[shape.name]}"
            case OneofShape() | WrapperShape():
                return f"message {self._roles[shape.message]}"

    def close(self, file: FileDescriptorProto, inputs: str, outputs: str, chunk: str | None) -> LockedModel:
        """Orders the fields of the model's messages by their numbers, and adds what is reserved.

        Args:
            file: The file with the messages.
            inputs: Full name of the message of calls.
            outputs: Full name of the message of answers.
            chunk: Full name of the message of a chunk; None for a model that has no such message now.

        Returns:
            The model's next lock.

        Raises:
            StartError: The previous lock is inconsistent.

        """
        try:
            descriptors: list[DescriptorProto | EnumDescriptorProto] = [*file.message_type, *file.enum_type]
            for descriptor in descriptors:
                if (fields := self._messages.get(self._roles.get(descriptor.name, ""))) is not None:
                    fields.arrange(descriptor)
            messages = {role: fields.locked() for role, fields in self._messages.items()}
            return LockedModel(
                name=self._base,
                input=self._roles[inputs],
                output=self._roles[outputs],
                chunk=self._roles[chunk] if chunk else self.locked.chunk,
                messages={**self.locked.messages, **messages},
            )
        except ValidationError as error:
            raise StartError(
                f"the lock of {self._base} is inconsistent: {lock_format.describe(error)}. {lock_format.REMEDY}"
            ) from None
