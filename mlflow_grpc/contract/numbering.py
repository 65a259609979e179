"""Names and numbers for the messages of one model: those of its lock, and fresh ones for what is new.

Rule of this module: what has a number in the lock keeps it, and its name, wherever it stands now; what has another type
gets another number and keeps its name; no number is given twice, not even after what had it is gone.

A type of the model's own (a nested record, an enum, a union, a wrapper) is found in the lock by the fields that hold
it: the message that a field held keeps its name and numbers, whatever it is called in the model now.
"""

import re
from collections.abc import Hashable, Iterable
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from pydantic import ValidationError

from mlflow_grpc.contract import lock
from mlflow_grpc.contract.lock import PARAMS, Kind, Member, Members, ModelLock
from mlflow_grpc.contract.names import UNSPECIFIED, FieldScope, FileScope, Scope, WordScope, word_name
from mlflow_grpc.contract.scalars import ELEMENTS
from mlflow_grpc.contract.shapes import (
    Array,
    Boxed,
    Message,
    OneOf,
    Plain,
    RpcKind,
    Shape,
    Slot,
    Timestamp,
    Value,
    Words,
)
from mlflow_grpc.contract.types import (
    ANY_CHUNK,
    Contract,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Type,
    Union,
)
from mlflow_grpc.errors import StartError

Proto = FieldDescriptorProto
Key = tuple[Kind, Hashable, str]
"""A type of the model's own: its kind, what it is made from, and the message that it has in the lock."""


def fresh(last: int) -> int:
    """The number of a new column, after the highest one that has been given."""
    number = last + 1
    for kept in (lock.OF_THE_CONTRACT, lock.OF_PROTOBUF):
        number = kept.stop if number in kept else number
    return number


DERIVED = ("inputs", "outputs", *(f"{word}_tensor" for word in ELEMENTS))
"""Messages that follow from others and need no lock; what is new in a model does not take their names."""


class Reserved:
    """The names of one model's messages that are its own before any is made."""

    def __init__(self, base: str, taken: FileScope, locked: ModelLock) -> None:
        """Args:
        base: What they begin with.
        taken: The names in the file.
        locked: What the lock has of the model.
        """
        self.locked = locked
        self.base = base
        self.full = {role: taken.name(f"{base}_{role}", role) for role in locked.messages}
        self.derived = {role: taken.name(f"{base}_{role}", role) for role in DERIVED}
        for role, members in locked.messages.items():
            if members.kind == "enum":
                names = [each.name for each in (*members.fields.values(), *members.removed.values())]
                for name in (UNSPECIFIED, *names):
                    taken.take_word(word_name(self.full[role], name))


class Book:
    """Gives out and writes down the names and numbers of one model."""

    def __init__(self, reserved: Reserved, taken: FileScope) -> None:
        """Args:
        reserved: The names that are the model's, and its lock.
        taken: The names in the file.
        """
        self.locked, self.base, self.taken = reserved.locked, reserved.base, taken
        self.derived = reserved.derived
        self._full = reserved.full
        self._roles = {full: role for role, full in self._full.items()}
        self._holders: dict[str, Hashable] = {}
        self._first: dict[tuple[Kind, Hashable], str] = {}
        self._expected = ""
        self._made: dict[str, Numbers] = {}

    def expect(self, role: str) -> None:
        """Says which message of the lock the type has that is asked for next."""
        self._expected = role

    def key(self, kind: Kind, thing: Hashable) -> Key:
        """What tells a type from others: the same thing may have several messages, if the lock has it so."""
        role, self._expected = self._expected, ""
        known = self.locked.messages.get(role)
        if known is None or known.kind != kind or self._holders.setdefault(role, thing) != thing:
            return kind, thing, self._first.setdefault((kind, thing), "")
        self._first.setdefault((kind, thing), role)
        return kind, thing, role

    def name(self, key: Key, words: str, otherwise: str) -> str:
        """The full name of the message or enum of a type that is met for the first time."""
        kind, _, role = key
        if role and role not in self._made:  # A wrapper that holds itself is named before it is known.
            full = self._full[role]
        else:
            words = words if re.search(r"[A-Za-z0-9]", words) else otherwise
            give = self.taken.enum if kind == "enum" else self.taken.name
            full = give(f"{self.base}_{words}", otherwise)
            role = self._roles[full] = full.removeprefix(f"{self.base}_")
        self._made[role] = Numbers(self, kind, full, self.locked.messages.get(role))
        if role in (self.locked.input, self.locked.output):
            self._made[role].keep_beside(with_error=role == self.locked.output)
        return full

    def numbers(self, full: str) -> "Numbers":
        """Of the fields of a message, or of the words of an enum, that has been named."""
        return self._made[self._roles[full]]

    def type_text(self, shape: Shape, form: str, *, presence: bool = True) -> str:
        """The type of a field as the lock has it."""
        match shape:
            case Plain():
                text = Proto.Type.Name(shape.type).removeprefix("TYPE_").lower()
            case Words():
                text = f"enum {self._roles[shape.enum]}"
            case Timestamp() | Value():
                text = f"google.protobuf.{type(shape).__name__}"
            case Array():
                text = f"tensor of {shape.message.removeprefix(f'{self.base}_').partition('_')[0]}"
            case Message():
                text = f"message {self._roles[shape.name]}"
            case OneOf() | Boxed():
                text = f"message {self._roles[shape.message]}"
        if form != "one":
            return f"repeated {text}" if form == "list" else f"map<string, {text}>"
        return f"optional {text}" if presence and isinstance(shape, Plain | Words) else text

    def close(
        self, file: FileDescriptorProto, input_name: str, output_name: str, chunk_name: str | None = None
    ) -> ModelLock:
        """Puts the fields of the model's messages in the order of their numbers, with what is reserved.

        Args:
            file: What the messages are in.
            input_name: The full name of that of calls.
            output_name: Of answers.
            chunk_name: Of a part of an answer; None if it has none of its own.

        Returns:
            What is to be locked of the model from now on.

        Raises:
            StartError: That would be no lock, since what it has had does not go together.

        """
        try:
            return self._close(file, input_name, output_name, chunk_name)
        except ValidationError as error:
            raise StartError(f"the lock of {self.base} does not go together: {lock.problem_of(error)}") from None

    def _close(self, file: FileDescriptorProto, input_name: str, output_name: str, chunk_name: str | None) -> ModelLock:
        parts: list[DescriptorProto | EnumDescriptorProto] = [*file.message_type, *file.enum_type]
        for descriptor in parts:
            if (numbers := self._made.get(self._roles.get(descriptor.name, ""))) is not None:
                numbers.arrange(descriptor)
        return ModelLock(
            name=self.base,
            input=self._roles[input_name],
            output=self._roles[output_name],
            chunk=self._roles[chunk_name] if chunk_name else self.locked.chunk,
            messages={**self.locked.messages, **{role: each.members() for role, each in self._made.items()}},
        )


class Numbers:
    """Gives out and writes down the names and numbers within one message or enum."""

    def __init__(self, book: Book, kind: Kind, full: str, locked: Members | None) -> None:
        self._book = book
        self._kind = kind
        self._locked = locked or Members(kind=kind)
        self._known = {**self._locked.removed, **self._locked.fields}
        self._given: dict[str, Member] = {}
        self._reserved = set(self._locked.reserved)
        self._fields = FieldScope(*lock.TAKEN.get(kind, ()))
        self._scope: Scope = WordScope(full, book.taken) if kind == "enum" else self._fields
        for each in self._known.values():
            self._scope.take(each.name)
            if each.type.startswith("map<"):
                self._fields.take_entry(each.name)
        self._beside: dict[str, str] = {}
        used = (*(each.number for each in self._known.values()), *self._reserved)
        self._last = max((each for each in used if kind == "enum" or each not in lock.OF_THE_CONTRACT), default=0)

    def in_order(self, keys: list[str]) -> list[int]:
        """The places of some fields, those first that the lock knows: what they hold is theirs before it is new."""
        return sorted(range(len(keys)), key=lambda place: keys[place] not in self._locked.fields)

    def name(self, key: str, words: str, otherwise: str) -> str:
        """The name of a field or word; its type, if it is one of the model's own, is asked for next."""
        known = self._known.get(key)
        self._book.expect(lock.named(known.type)[1] if known else "")
        return known.name if known else self._scope.name(words, otherwise)

    def name_of_map(self, key: str, words: str, otherwise: str) -> str:
        """The same of a map. It keeps its name unless another field is called like its type, which protoc refuses."""
        known = self._known.get(key)
        if known is None or not self._fields.can_be_map(known.name):
            self._book.expect(lock.named(known.type)[1] if known else "")
            return self._fields.map(words, otherwise)
        self._fields.take_entry(known.name)
        return self.name(key, words, otherwise)

    def keep_beside(self, *, with_error: bool) -> None:
        """Takes the names that go with what is locked, before anything new is called so."""
        for key, each in self._known.items():
            if key != PARAMS:
                self.nulls_of(each.name)
                if each.type.startswith(("repeated ", "map<")):
                    self.null_items_of(each.name, "map" if each.type.startswith("map<") else "list")
        if with_error:
            self.error_field()

    def nulls_of(self, name: str) -> str:
        """The name of the field with the nulls of a column."""
        return self._besides(f"{name}_nulls", "nulls")

    def null_items_of(self, name: str, form: str) -> str:
        """The name of the field with the nulls within a list or map."""
        word = "null_keys" if form == "map" else "null_items"
        return self._besides(f"{name}_{word}", word)

    def error_field(self) -> str:
        """The name of the field that says why there is no answer."""
        return self._besides("error", "error")

    def extra_field(self) -> str:
        """The name of the map with what a value has beside the fields of its record."""
        if "extra" not in self._beside:
            self._beside["extra"] = self._fields.map("extra", "extra")
        return self._beside["extra"]

    def _besides(self, words: str, otherwise: str) -> str:
        if words not in self._beside:
            self._beside[words] = self._scope.name(words, otherwise)
        return self._beside[words]

    def number(self, key: str, slot: Slot, type_text: str) -> int:
        """The number of a field, once its type is known.

        Args:
            key: What the lock calls it.
            slot: The field; its number is 0, or the one that such a field always has.
            type_text: Its type.

        Raises:
            StartError: None is left.

        """
        source, shape, of = slot.source, slot.shape, ""
        if isinstance(shape, Plain):
            of = shape.format
        elif isinstance(shape, Array):
            of = f"{shape.dtype} {list(shape.shape)}"
        is_column = self._kind == "record" and key != PARAMS
        return self._give(
            key,
            slot.number,
            name=slot.name,
            type=type_text,
            of=of,
            required=is_column and source.required,
            nullable=is_column and (source.nullable or not (source.required or source.has_default)),
        )

    def number_of_word(self, key: str, name: str) -> int:
        """The number of a word of an enum."""
        return self._give(key, 0, name=name)

    def _give(self, key: str, always: int, **made: Any) -> int:
        known = self._known.get(key)
        if known is not None and known.type == made.get("type", ""):
            number = known.number
        else:
            if known is not None and known.number != always:
                self._reserved.add(known.number)
            number = always or (self._last + 1 if self._kind == "enum" else fresh(self._last))
        if number > (lock.MOST_OF_WORDS if self._kind == "enum" else lock.MOST):
            raise StartError(f"the lock has no number left for {key!r}: the highest that it has given is {self._last}")
        self._last = max(self._last, number) if not always else self._last
        self._given[key] = Member(number=number, **made)
        return number

    def members(self) -> Members:
        """What is to be locked."""
        removed = {key: each for key, each in self._known.items() if key not in self._given}
        return Members(kind=self._kind, fields=self._given, removed=removed, reserved=tuple(sorted(self._reserved)))

    def arrange(self, descriptor: DescriptorProto | EnumDescriptorProto) -> None:
        """Puts fields or words in the order of their numbers, with what is reserved."""
        members = self.members()
        names = [each.name for each in members.removed.values()]
        if isinstance(descriptor, EnumDescriptorProto):
            descriptor.value.sort(key=lambda each: each.number)
            names = [word_name(descriptor.name, name) for name in names]
        else:
            descriptor.field.sort(key=lambda each: each.number)
            # The types of maps stand in the order of the maps, as protoc has them.
            places = {each.type_name.rpartition(".")[2]: each.number for each in descriptor.field}
            descriptor.nested_type.sort(key=lambda each: places[each.name])
        descriptor.reserved_name.extend(names)
        for number in sorted([*(each.number for each in members.removed.values()), *members.reserved]):
            # The end of a range is in it for an enum, and not for a message.
            end = number if isinstance(descriptor, EnumDescriptorProto) else number + 1
            descriptor.reserved_range.add(start=number, end=end)


def chunks_of(contract: Contract, locked: ModelLock) -> Record | None:
    """What a part of an answer is; None if it is the output.

    Where nothing is known of a model's parts, clients keep what the lock has: the output, or any JSON.
    """
    if contract.chunks is None:
        return ANY_CHUNK if locked.chunk else None
    is_output = RpcKind.STREAM in locked.rpcs and not locked.chunk
    return None if contract.chunks is ANY_CHUNK and is_output else contract.chunks


def keys_of(fields: list[Field], only: str = "") -> list[str]:
    """What the lock calls the fields of a record: by their names, or by their places where none has a name; `only` if
    it is a single one, and has none.
    """
    if only and len(fields) == 1:
        return distinct([fields[0].name or only])
    has_names = any(each.name for each in fields)
    return distinct(each.name if has_names else str(place) for place, each in enumerate(fields))


def keys_of_types(kinds: tuple[Type, ...]) -> list[str]:
    """What the lock calls the alternatives of a union, whatever their order."""
    return distinct(_described(kind) for kind in kinds)


def distinct(names: Iterable[str]) -> list[str]:
    """Names of which none is there twice, since MLflow lets two columns have one, and that a file can hold."""
    found = {PARAMS: None}
    for each in names:
        name = each.encode(errors="backslashreplace").decode()
        candidate, number = name, 2
        while candidate in found:
            candidate, number = f"{name} ({number})", number + 1
        found[candidate] = None
    return list(found)[1:]


def _described(kind: Type) -> str:
    match kind:
        case ListOf():
            return f"list of {_described(kind.items)}"
        case MapOf():
            return f"map of {_described(kind.values)}"
        case Union():
            return " or ".join(map(_described, kind.alternatives))
        case _:
            return word_of(kind)


def word_of(kind: Type) -> str:
    """A type in one word."""
    match kind:
        case Scalar():
            return kind.format or kind.kind.value
        case Enumeration() | Record():
            return kind.name
        case _:
            return type(kind).__name__.lower().removesuffix("of")
