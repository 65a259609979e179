"""Names and numbers for the fields of a message, or the values of an enum: those in the lock, and new ones.

Rules of this module:

- A field that is in the lock keeps its name and number, wherever the model has it now.
- A field whose type changed keeps its name and gets a new number.
- No number is used twice, not even after its field was removed.
"""

from _mlflow_grpc_protocol.shapes import FieldShape, ScalarShape, TensorShape
from _mlflow_grpc_protocol.typed_terms import Cardinality
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto

from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile.format import PARAMS_KEY, LockedField, LockedMessage
from mlflow_grpc.contract.names import EnumScope, FieldScope, FileScope, Scope, enum_value_name
from mlflow_grpc.contract.types import AnyValue, Field, MapOf, Type
from mlflow_grpc.errors import StartError


class FieldNumbering:
    """The names and numbers of the fields of a message, or of the values of an enum, in use so far."""

    def __init__(self, full_name: str, previous: LockedMessage, file: FileScope) -> None:
        """Starts with the message's lock.

        Args:
            full_name: Name of the message or enum in the file.
            previous: The message in the lock; without fields for a new message.
            file: Names in use in the file.

        """
        self._previous = previous
        self._message_kind = previous.message_kind
        self._current: dict[str, LockedField] = {}
        self._locked = previous.all_fields
        self._reserved = set(previous.reserved)
        self._names = FieldScope(*lock_format.TAKEN_NAMES.get(self._message_kind, ()))
        self._scope: Scope = EnumScope(full_name, file) if self._message_kind == "enum" else self._names
        for field in self._locked.values():
            self._scope.take(field.name)
            if field.type.startswith("map<"):
                self._names.take_entry(field.name)
        self._types: dict[str, Type] = {}
        self._companions: dict[str, str] = {}
        used = (*(field.number for field in self._locked.values()), *self._reserved)
        is_enum = self._message_kind == "enum"
        self._last = max((n for n in used if is_enum or n not in lock_format.CONTRACT_NUMBERS), default=0)

    def order(self, keys: list[str]) -> list[int]:
        """The indices of fields, those in the lock first, so that a message that they share keeps its name."""
        return sorted(range(len(keys)), key=lambda index: keys[index] not in self._previous.fields)

    def role(self, key: str) -> str:
        """The role of the message or enum that a field has in the lock; empty if it has none."""
        return self._locked[key].role if key in self._locked else ""

    def expect(self, columns: dict[str, Field], other: str) -> None:
        """Starts a message with the columns that it will have, so that their order does not decide their names.

        Args:
            columns: The columns, by their keys in the lock.
            other: Name of a field that the message will have besides; empty for none.

        """
        self._types = {key: column.type for key, column in columns.items()}
        names = {key: self._locked[key].name if key in self._locked else column.name for key, column in columns.items()}
        self._names.expect([(name, self._types[key]) for key, name in names.items() if name])
        if other:
            self._names.expect([(other, None)])

    def name(self, key: str, text: str, fallback: str, *, is_map: bool = False) -> str:
        """Gives a name to a field or enum value.

        A map loses its name in the lock if another field has the name of its entry type, which protoc refuses.
        """
        locked = self._locked.get(key)
        if locked is not None and not is_map:
            return locked.name
        if locked is not None and self._names.can_be_map(locked.name):
            self._names.take_entry(locked.name)
            return locked.name
        if self._message_kind == "enum":
            return self._scope.name(text, fallback)
        return self._names.column(text, fallback, self._types.get(key), is_map=is_map)

    def reserve_companions(self, *, with_error: bool) -> None:
        """Takes the names of the fields that belong to fields in the lock, before a new field gets them."""
        for key, field in self._locked.items():
            if key != PARAMS_KEY:
                self.nulls_field(field.name)
                if field.is_repeated_or_map:
                    is_map = field.type.startswith("map<")
                    self.null_items_field(field.name, Cardinality.MAP if is_map else Cardinality.REPEATED)
        if with_error:
            self.error_field()

    def nulls_field(self, name: str) -> str:
        """The name of the field with the nulls of a column."""
        return self._companion(f"{name}_nulls", "nulls")

    def null_items_field(self, name: str, cardinality: Cardinality) -> str:
        """The name of the field with the nulls within a list or map."""
        suffix = "null_keys" if cardinality is Cardinality.MAP else "null_items"
        return self._companion(f"{name}_{suffix}", suffix)

    def error_field(self) -> str:
        """The name of the field for an error."""
        return self._companion("error", "error")

    def extra_field(self) -> str:
        """The name of the map for values that have no field."""
        if "extra" not in self._companions:
            self._companions["extra"] = self._names.map("extra", "extra", MapOf(AnyValue()))
        return self._companions["extra"]

    def _companion(self, text: str, fallback: str) -> str:
        if text not in self._companions:
            self._companions[text] = self._scope.name(text, fallback)
        return self._companions[text]

    def number(self, key: str, field: FieldShape, type_text: str) -> int:
        """Gives a number to a field.

        Args:
            key: Key of the field in the lock.
            field: The field. Its number is 0, or the number that such a field always has.
            type_text: Type of the field, as the lock has it.

        Raises:
            StartError: No number is left.

        """
        shape, detail = field.shape, ""
        if isinstance(shape, ScalarShape):
            detail = shape.format
        elif isinstance(shape, TensorShape):
            detail = f"{shape.dtype} {list(shape.shape)}"
        is_column = self._message_kind == "record" and key != PARAMS_KEY
        number = self._number(key, type_text, fixed=field.number)
        self._current[key] = LockedField(
            name=field.name,
            number=number,
            type=type_text,
            of=detail,
            required=is_column and field.required,
            nullable=is_column and (field.nullable or not (field.required or field.has_default)),
        )
        return number

    def enum_number(self, key: str, name: str) -> int:
        """Gives a number to an enum value."""
        number = self._number(key, "", fixed=0)
        self._current[key] = LockedField(name=name, number=number)
        return number

    def _number(self, key: str, type_text: str, *, fixed: int) -> int:
        locked = self._locked.get(key)
        if locked is not None and locked.type == type_text:
            number = locked.number
        else:
            if locked is not None and locked.number != fixed:
                self._reserved.add(locked.number)
            number = fixed or (self._last + 1 if self._message_kind == "enum" else _next_field_number(self._last))
        limit = lock_format.MAX_ENUM_NUMBER if self._message_kind == "enum" else lock_format.MAX_FIELD_NUMBER
        if number > limit:
            raise StartError(
                f"the lock has no number left for {key!r}: the highest number in use is {self._last}. "
                "Start a new lock file, and give clients the new .proto"
            )
        if not fixed:
            self._last = max(self._last, number)
        return number

    def locked(self) -> LockedMessage:
        """The message's next lock."""
        removed = {key: field for key, field in self._locked.items() if key not in self._current}
        reserved = tuple(sorted(self._reserved))
        return LockedMessage(kind=self._message_kind, fields=self._current, removed=removed, reserved=reserved)

    def arrange(self, descriptor: DescriptorProto | EnumDescriptorProto) -> None:
        """Orders the fields of a descriptor by their numbers, and adds what is reserved."""
        message = self.locked()
        numbers = sorted([*(field.number for field in message.removed.values()), *message.reserved])
        names = [field.name for field in message.removed.values()]
        if isinstance(descriptor, EnumDescriptorProto):
            descriptor.value.sort(key=lambda value: value.number)
            descriptor.reserved_name.extend(enum_value_name(descriptor.name, name) for name in names)
            for number in numbers:  # The end of an enum's range is part of it.
                descriptor.reserved_range.add(start=number, end=number)
            return
        descriptor.field.sort(key=lambda field: field.number)
        # protoc has the entry types of maps in the order of the maps.
        by_entry = {field.type_name.rpartition(".")[2]: field.number for field in descriptor.field}
        descriptor.nested_type.sort(key=lambda entry: by_entry[entry.name])
        descriptor.reserved_name.extend(names)
        for number in numbers:
            descriptor.reserved_range.add(start=number, end=number + 1)


def _next_field_number(last: int) -> int:
    """The number of a new column, after the highest number in use."""
    number = last + 1
    for reserved in (lock_format.CONTRACT_NUMBERS, lock_format.PROTOBUF_NUMBERS):
        number = reserved.stop if number in reserved else number
    return number
