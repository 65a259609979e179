"""Protobuf messages out of contracts: one file of messages for all models of a server, and how values stand in them.

Rule of this module: everything that a message looks like is decided here, once. Descriptors are made for protobuf and
shapes beside them for those who fill messages and read them (`mlflow_grpc.payload.protobuf.record`).

Choices: a single value has presence (`optional`), so that what is left out is not zero and a required field that is
missing is found out. A list or map has none where leaving it out means the same as an empty one; where it does not, it
is wrapped in a message. Lists of lists and values that may be null are wrapped too.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from mlflow_grpc.contract.comments import words_of
from mlflow_grpc.contract.fields import NULLS_NUMBER, PACKAGE, add_field, add_null_items, add_nulls
from mlflow_grpc.contract.lock import PARAMS, PARAMS_NUMBER, ModelLock
from mlflow_grpc.contract.names import UNSPECIFIED, FileScope, Scope, word_name
from mlflow_grpc.contract.numbering import Book, Reserved, chunks_of, distinct, keys_of, keys_of_types, word_of
from mlflow_grpc.contract.scalars import SCALARS, element
from mlflow_grpc.contract.shapes import (
    Array,
    Batch,
    Boxed,
    Column,
    Message,
    ModelMessages,
    ModelWords,
    OneOf,
    Plain,
    Rows,
    RpcKind,
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
    with_nulls_beside,
)

FILE = "model_service.proto"
SERVICE = "ModelgRPCService"

HEADER = "The typed RPCs of the models of a server, made by `mlflow-grpc proto` from their signatures and schemas."

OWN_MESSAGES = ("empty", "model", "model_collection", "error", "field_violation")
"""Names of the messages that belong to no model (`mlflow_grpc.contract.service`)."""

ERROR_NUMBER = PARAMS_NUMBER + 1
"""Of the field that, in a stream, holds why there is no answer: columns pass over the numbers from 1000 to 1099."""

EXTRA_NUMBER = PARAMS_NUMBER + 2
"""Of the map, in the message of a record that is open, with what the record's fields do not hold."""

MOST_FIELDS = 4_000
"""Columns of a message: protobuf has 64 KB for the fields of one that holds messages too, and a text takes 16 bytes."""

Proto = FieldDescriptorProto


class FileMaker:
    """Makes the messages of models, one after the other, in one file."""

    def __init__(self, locks: Iterable[ModelLock] = ()) -> None:
        """Args:
        locks: What is locked of models, here or not: no other model's messages get the names of theirs.
        """
        self.file = FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
        self._taken = FileScope(*OWN_MESSAGES, SERVICE)
        self._reserved: dict[str, Reserved] = {}
        for each in locks:
            if each.name and each.name not in self._reserved:
                self._reserved[each.name] = Reserved(each.name, self._taken, each)
        self._bases = Scope(*OWN_MESSAGES, *self._reserved)
        self._given: set[str] = set()
        self.comments: dict[tuple[str, str], str] = {("", ""): HEADER}
        """What is said of messages and their fields; see `mlflow_grpc.contract.comments`."""
        self.locks: dict[str, ModelLock] = {}
        """What is to be locked of each model."""
        self._known: dict[Any, Any] = {}
        self._book: Book
        self._words = ModelWords()

    def add(
        self,
        name: str,
        contract: Contract,
        locked: ModelLock | None = None,
        *,
        streams: bool = False,
        refused: frozenset[RpcKind] = frozenset(),
    ) -> ModelMessages:
        """Makes the messages of a model whose inputs are known.

        Args:
            name: What it is called.
            contract: What it takes and gives.
            locked: The numbers and names that it has had.
            streams: Whether it gives answers part by part.
            refused: RPCs that it is not to have.

        """
        reserved = self._reserved.get(locked.name) if locked is not None else None
        if reserved is None or reserved.locked != locked or locked.name in self._given:
            reserved = Reserved(self._bases.name(name, "model"), self._taken, locked or ModelLock())
        base = reserved.base
        self._given.add(base)
        first_message, first_enum = len(self.file.message_type), len(self.file.enum_type)
        self._is_answer, self._with_nulls_beside = False, with_nulls_beside(contract)
        self._book, self._known, self._words = Book(reserved, self._taken), {}, ModelWords()
        self._book.expect(self._book.locked.input)
        inputs = self._root("input", contract.inputs, "value")
        params, params_field = None, ""
        if contract.params is not None:
            params_field = self._book.numbers(inputs.name).name(PARAMS, "params", "params")
            params = self._message(contract.params, "params")
            field = Slot(params_field, Field("", AnyValue(), False), params, "one", PARAMS_NUMBER)
            self._add(self._descriptor(inputs.name), PARAMS, field)
            self.comments[inputs.name, params_field] = "Params of the model; what is left out has its default."
        self._is_answer = True
        self._book.expect(self._book.locked.output)
        outputs = self._root("output", contract.outputs, "prediction")
        chunk = self._chunk(contract) if streams else None
        self.locks[name] = self._book.close(self.file, inputs.name, outputs.name, chunk.name if chunk else None)
        error_field = self._book.numbers(outputs.name).error_field()
        add_field(self._descriptor(outputs.name), error_field, ERROR_NUMBER, Message("error"), "one")
        self.comments[outputs.name, error_field] = (
            f"Set in a stream only, by {base}_predict_many, in the place of a record that failed."
        )
        # What is in columns has the names and numbers of the fields above, and needs no lock of its own.
        rows = self._rows("inputs", contract.inputs, inputs) if contract.takes_rows else None
        answers = self._rows("outputs", contract.outputs, outputs) if rows is not None else None
        if rows is not None and params is not None:
            add_field(self._descriptor(rows.name), params_field, PARAMS_NUMBER, params, "one")
            self.comments[rows.name, params_field] = self.comments[inputs.name, params_field]
        batch = Batch(rows, answers) if rows is not None and answers is not None else None
        made = [*self.file.message_type[first_message:], *self.file.enum_type[first_enum:]]
        sha = hashlib.sha256(b"".join(each.SerializeToString(deterministic=True) for each in made)).hexdigest()[:16]
        made_of_model = ModelMessages(
            base, inputs, outputs, params, params_field, error_field, batch, streams, chunk, refused, self._words, sha
        )
        self.locks[name] = self.locks[name].model_copy(update={"rpcs": tuple(map(str, made_of_model.rpcs))})
        return made_of_model

    def _descriptor(self, name: str) -> DescriptorProto:
        return next(each for each in self.file.message_type if each.name == name)

    def _rows(self, role: str, part: Record | Tensor | None, row: Message) -> Rows | None:
        """The message for any number of rows, in columns; None for what has no rows."""
        kinds = [each.type for each in part.fields] if isinstance(part, Record) else [part]
        if not 0 < len(row.slots) <= MOST_FIELDS // 2 or any(
            isinstance(kind, Tensor) and kind == row_of(kind) for kind in kinds
        ):
            return None
        rows = Rows(self._book.derived[role], is_closed=row.is_closed)
        descriptor = self.file.message_type.add(name=rows.name)
        descriptor.reserved_name.extend(self._descriptor(row.name).reserved_name)
        descriptor.reserved_range.extend(self._descriptor(row.name).reserved_range)
        self.comments[rows.name, ""] = "Rows, in columns: each field has an entry for each row."
        numbers = self._book.numbers(row.name)
        for slot in row.slots:
            whole = isinstance(slot.shape, Array)
            kind = slot.source.type
            shape = self._boxed(kind, slot.name) if isinstance(kind, ListOf | MapOf) else slot.shape
            column = replace(slot, shape=shape, form="one" if whole else "list")
            add_field(descriptor, slot.name, slot.number, shape, column.form)
            self.comments[rows.name, slot.name] = self.comments[row.name, slot.name]
            word = self._words.names.get(f"{PACKAGE}.{row.name}.{slot.name}")
            if word is not None:
                self._words.names[f"{PACKAGE}.{rows.name}.{slot.name}"] = word
            nulls = ""
            # Models predict None for columns too that their output schema requires: one row's answer leaves it out.
            if not whole and (role == "outputs" or not slot.source.needs_value):
                nulls = numbers.nulls_of(slot.name)
                add_field(descriptor, nulls, NULLS_NUMBER + slot.number, Plain(Proto.TYPE_UINT64), "list")
                self.comments[rows.name, nulls] = (
                    f"The rows, counted from 0, that have no {slot.name}: what stands there is of no meaning."
                )
            rows.columns.append(Column(column, nulls))
        descriptor.field.sort(key=lambda each: each.number)
        return rows

    def _root(self, role: str, part: Record | Tensor | None, only: str) -> Message:
        """The message for a whole input or output of one row."""
        if isinstance(part, Record):
            rows = [replace(each, type=row_of(each.type)) for each in part.fields]
            return self._message(replace(part, fields=rows), role, only)
        kind = AnyValue() if part is None else row_of(part)
        message = self._message(Record(role, [Field(only, kind)]), role)
        self._words.names[f"{PACKAGE}.{message.name}.{message.slots[0].name}"] = ""
        return message

    def _chunk(self, contract: Contract) -> Message | None:
        """The message for a part of an answer; None if that is the output."""
        self._book.expect(self._book.locked.chunk)
        chunks = chunks_of(contract, self._book.locked)
        return self._root("chunk", chunks, "prediction") if chunks is not None else None

    def _message(self, record: Record, role: str, only: str = "") -> Message:
        key = self._book.key("record", record)
        if key in self._known:
            found: Message = self._known[key]
            return found
        message = Message(self._book.name(key, role, "message"), is_closed=record.is_closed)
        self._known[key] = message
        descriptor = self.file.message_type.add(name=message.name)
        self.comments[message.name, ""] = record.description
        numbers, keys = self._book.numbers(message.name), keys_of(record.fields, only)
        if record.open:
            self._add_extra(message, descriptor)
        single = only if len(record.fields) == 1 else ""
        slots = {}
        for place in numbers.in_order(keys):
            each = record.fields[place]
            give = numbers.name_of_map if isinstance(each.type, MapOf) and not _is_boxed(each) else numbers.name
            name = give(keys[place], each.name or single or f"column_{place}", f"field_{place + 1}")
            slots[place] = self._add(descriptor, keys[place], Slot(name, each, *self._placed(each, name)))
            if each.name != name:
                self._words.names[f"{PACKAGE}.{message.name}.{name}"] = each.name
            self.comments[message.name, name] = words_of(each, name, slots[place].shape)
        if self._is_answer and not record.open:
            slots = add_nulls(descriptor, slots, numbers.nulls_of, self.comments)
        for place, slot in slots.items():
            if slot.form != "one" and isinstance(slot.source.type, ListOf | MapOf) and slot.source.type.nulls_beside:
                slots[place] = add_null_items(descriptor, slot, numbers.null_items_of, self.comments)
        message.slots.extend(slots[place] for place in range(len(keys)))
        return message

    def _add_extra(self, message: Message, descriptor: DescriptorProto) -> None:
        """Adds the field for what a record has beside its fields, none of which may have its name."""
        message.extra = self._book.numbers(message.name).extra_field()
        add_field(descriptor, message.extra, EXTRA_NUMBER, Value(), "map")
        self.comments[message.name, message.extra] = "What the other fields cannot hold, as it is in JSON."

    def _add(self, descriptor: DescriptorProto, key: str, slot: Slot, *, oneof: int | None = None) -> Slot:
        """Adds a field that has its name and its shape, and gets its number here."""
        text = self._book.type_text(slot.shape, slot.form, presence=oneof is None)
        slot = replace(slot, number=self._book.numbers(descriptor.name).number(key, slot, text))
        add_field(descriptor, slot.name, slot.number, slot.shape, slot.form, oneof=oneof)
        return slot

    def _placed(self, each: Field, name: str) -> tuple[Shape, str]:
        """How a field holds its value."""
        return (self._boxed(each.type, name), "one") if _is_boxed(each) else self._formed(each.type, name)

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
        key = self._book.key("wrapper", (kind, null))
        if key not in self._known:
            is_one = null or not isinstance(kind, ListOf | MapOf)
            message = self._book.name(key, f"{name}_{'value' if is_one else 'values'}", "values")
            descriptor = self.file.message_type.add(name=message)
            self._words.wrappers.append(f"{PACKAGE}.{message}")
            # Reserved before what it holds is made, which may come back to it.
            source = Field("value" if is_one else "values", kind, required=False)
            inner = self._book.numbers(message).name(source.name, source.name, "value")
            if null:
                shape, form = self._item(kind, False, name), "one"
            else:
                shape, form = self._formed(kind, name)
            slot = self._add(descriptor, source.name, Slot(inner, source, shape, form))
            if form != "one" and kind in self._with_nulls_beside:  # Inputs and outputs may share the message.
                names = self._book.numbers(message).null_items_of
                slot = add_null_items(descriptor, slot, names, self.comments)
            self._known[key] = Boxed(message, slot)
        found: Boxed = self._known[key]
        return found

    def _shape(self, kind: Type, name: str) -> Shape:
        match kind:
            case Scalar(kind=Kind.DATETIME):
                return Timestamp()
            case Scalar():
                return Plain(SCALARS[kind.kind], kind.kind, kind.format)
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
        key = self._book.key("enum", kind)
        if key not in self._known:
            name = self._book.name(key, kind.name, "enum")
            enum = EnumDescriptorProto(name=name)
            enum.value.add(name=word_name(name, UNSPECIFIED), number=0)
            self.comments[name, enum.value[0].name] = "None of them."
            numbers = self._book.numbers(name)
            for word_key, word in zip(distinct(kind.values), kind.values, strict=True):
                short = numbers.name(word_key, word, "value")
                value = enum.value.add(name=word_name(name, short), number=numbers.number_of_word(word_key, short))
                self._words.names[f"{PACKAGE}.{value.name}"] = word
                self.comments[name, value.name] = json.dumps(word, ensure_ascii=False)
            words = Words(name, kind.values, tuple(each.number for each in enum.value[1:]))
            self.file.enum_type.append(enum)
            self._known[key] = words
        found: Words = self._known[key]
        return found

    def _array(self, tensor: Tensor) -> Shape:
        word, kind = element(tensor.dtype)
        if not tensor.shape:
            return Plain(kind)
        key = ("array", word)
        if key not in self._known:
            name = self._book.derived[f"{word}_tensor"]
            descriptor = self.file.message_type.add(name=name)
            self._words.wrappers.append(f"{PACKAGE}.{name}")
            add_field(descriptor, "data", 1, Plain(kind), "list")
            add_field(descriptor, "shape", 2, Plain(Proto.TYPE_INT64), "list")
            self._known[key] = name
        return Array(self._known[key], tensor.dtype, tensor.shape, kind)

    def _union(self, union: Union, name: str) -> OneOf:
        key = self._book.key("union", union)
        if key not in self._known:
            message = self._book.name(key, f"{name}_union", "union")
            descriptor = self.file.message_type.add(name=message)
            descriptor.oneof_decl.add(name="value")
            alternatives = []
            for number, (each, kind) in enumerate(
                zip(keys_of_types(union.alternatives), union.alternatives, strict=True), start=1
            ):
                field_name = self._book.numbers(message).name(each, f"{word_of(kind)}_value", "value")
                shape = self._shape(kind, f"{name}_{number}")
                self._add(descriptor, each, Slot(field_name, Field(each, kind, required=False), shape), oneof=0)
                alternatives.append((field_name, shape))
            self._known[key] = OneOf(message, tuple(alternatives))
        found: OneOf = self._known[key]
        return found


def _is_boxed(each: Field) -> bool:
    """Whether a field is a list or map without which something else is meant than an empty one."""
    is_many = isinstance(each.type, ListOf | MapOf)
    return is_many and (each.nullable or not (each.required or each.default in ([], {})))


def obstacle(contract: Contract) -> str:
    """Why no messages can be made for a model; empty if they can."""
    if contract.obstacle:
        return contract.obstacle
    for part in (contract.inputs, contract.outputs, contract.params):
        names = [each.name for each in part.fields] if isinstance(part, Record) else []
        if len(names) > MOST_FIELDS:
            return f"it has more than {MOST_FIELDS} columns"
        if len(set(filter(None, names))) < len(list(filter(None, names))):
            return "two of its columns have the same name"
    return ""


def row_of(kind: Type) -> Type:
    """What one row of a column is: a tensor without the size of its batch, anything else itself."""
    return Tensor(kind.dtype, kind.shape[1:]) if isinstance(kind, Tensor) and kind.shape[:1] == (-1,) else kind
