"""What a model's messages hold, learnt from their descriptors and from what service Models says beside.

Rule of this module: it knows types, not values, and asks nobody anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from mlflow_grpc_client.errors import failure

SERVICE = "model_grpc_service.ModelgRPCService"

PARAMS_NUMBER = 1000
"""Of the field for a model's params in its input message."""
ERROR_NUMBER = 1001
"""Of the field for the error of a record in the output message of a stream."""
EXTRA_NUMBER = 1002
"""Of the map with what a record of an answer has beside its fields."""
ERROR_MESSAGE = "model_grpc_service.error"
NULLS_NUMBER = 100_000
"""Of the field for the places of the rows in which a column has no value: so much above the column's own."""
NULL_ITEMS_NUMBER = 200_000
"""Of the field for the places in a list, or the keys of a map, with a null: so much above that of the list or map."""


class Kind(Enum):
    """What a value of a field is."""

    BOOLEAN = auto()
    INTEGER = auto()
    FLOAT = auto()
    DOUBLE = auto()
    TEXT = auto()
    BYTES = auto()
    WORD = auto()
    """One of some words: an enum."""
    MOMENT = auto()
    """google.protobuf.Timestamp."""
    JSON = auto()
    """google.protobuf.Value."""
    RECORD = auto()
    BOX = auto()
    """A message around a list, a map or a value that may be null."""
    TENSOR = auto()
    UNION = auto()
    """A message with one of several fields."""


class Form(Enum):
    """How many values a field has."""

    ONE = auto()
    LIST = auto()
    MAP = auto()


_SCALARS = {
    FieldDescriptor.TYPE_BOOL: Kind.BOOLEAN,
    FieldDescriptor.TYPE_FLOAT: Kind.FLOAT,
    FieldDescriptor.TYPE_DOUBLE: Kind.DOUBLE,
    FieldDescriptor.TYPE_STRING: Kind.TEXT,
    FieldDescriptor.TYPE_BYTES: Kind.BYTES,
    FieldDescriptor.TYPE_ENUM: Kind.WORD,
}
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_KNOWN_MESSAGES = {"google.protobuf.Timestamp": Kind.MOMENT, "google.protobuf.Value": Kind.JSON}


@dataclass(frozen=True, slots=True)
class Type:
    """What one value is."""

    kind: Kind
    bounds: tuple[int, int] = (0, 0)
    """The least and the largest integer."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Words and their numbers."""
    words: Mapping[int, str] = field(default_factory=dict)
    """Numbers and their words."""
    record: "Record | None" = None
    """The fields of a message: of a record, a union, a box or a tensor."""

    @property
    def message(self) -> "Record":
        """The fields of one that is a message."""
        return self.record or Record("")

    @property
    def content(self) -> "Field":
        """The field of a box."""
        (content,) = self.message.fields.values()
        return content


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message."""

    name: str
    """In protobuf."""
    word: str
    """In the model; empty for a column without a name."""
    number: int
    type: Type
    form: Form
    has_presence: bool
    """Whether one that is left out is another thing than an empty one."""
    null: str = ""
    """The field that is true where there is no value, of a list or map that would be empty without it."""
    null_items: str = ""
    """The field with the places or keys of the nulls within a list or map; empty if there is no room for any."""

    @property
    def label(self) -> str:
        """What an answer calls it."""
        return self.word or self.name

    @property
    def takes_dicts(self) -> bool:
        """Whether a dict may be its value."""
        if self.form is not Form.ONE or self.type.kind is not Kind.BOX:
            return self.form is Form.MAP or (self.form is Form.ONE and self.type.kind in (Kind.RECORD, Kind.JSON))
        return self.type.content.takes_dicts


def kind_name(each: Field) -> str:
    """What values a field has, in words."""
    kind = each.type.kind
    if kind is Kind.BOX:
        return kind_name(each.type.content)
    name = " | ".join(each.type.numbers) if kind is Kind.WORD else kind.name.lower()
    name = f"{name} or null" if each.null_items else name
    return {Form.ONE: name, Form.LIST: f"list of {name}", Form.MAP: f"map of {name}"}[each.form]


@dataclass(eq=False, slots=True)
class Record:
    """The fields of a message, by name. Filled after it was made, since it may hold itself."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    spellings: dict[str, Field] = field(default_factory=dict)
    """By their names in the model, and by those in protobuf where no other field has that name in the model."""
    required: set[str] = field(default_factory=set)
    """The names in protobuf of fields that have to be given, as far as a schema says so."""
    defaulted: set[str] = field(default_factory=set)
    """Those of fields that have a default other than null when they are left out."""
    extra: Field | None = None
    """The map with what a record of an answer has beside its fields."""

    def add(self, made: Field) -> None:
        """Adds a field under all its names."""
        self.fields[made.name] = made
        self.spellings.setdefault(made.name, made)
        if made.word:
            self.spellings[made.word] = made

    @property
    def only_nameless(self) -> Field | None:
        """Its only field, if it has no other and that one has no name in the model."""
        found = list(self.fields.values())
        return found[0] if len(found) == 1 and not found[0].word else None


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC of a model."""

    path: str
    request_class: Any
    request: Record
    response_class: Any
    response: Record
    error: str = ""
    """The field of the response for the error of a record of a stream, if it has one."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The RPCs of one model, as a server had them at one time."""

    label: str
    about: bytes
    """What service Models said that this was made from."""
    rpcs: Mapping[str, Rpc]
    """By what their names end in: predict, predict_batch, predict_many, predict_stream."""
    params: Field | None
    """The field for params of its input messages."""
    fingerprint: str = ""
    """What the server calls these messages; empty if it does not say."""

    @property
    def row(self) -> Record:
        """What one row may have; of a model that gives no answer to a single record, by the columns of a batch.

        Raises:
            PredictError: It takes neither records nor rows.

        """
        if "predict" in self.rpcs or "predict_batch" not in self.rpcs:
            return self.rpc("predict").request
        batch = self.rpcs["predict_batch"].request
        found = Record(batch.name, required=batch.required, defaulted=batch.defaulted)
        for each in batch.fields.values():
            found.add(replace(each, form=Form.ONE))
        return found

    def rpc(self, kind: str) -> Rpc:
        """One of its RPCs.

        Raises:
            PredictError: It has none of this kind.

        """
        if kind not in self.rpcs:
            what = {
                "predict": "gives no answer to a single record: give it in a list, for all rows of its answer"
                if "predict_batch" in self.rpcs
                else "has no such RPC",
                "predict_batch": "takes no batches of rows: give one record at a time",
                "predict_many": "has no typed stream: client.stream takes JSON payloads",
                "predict_stream": "does not give its answers in parts",
            }.get(kind, "has no such RPC")
            raise failure(grpc.StatusCode.UNIMPLEMENTED, f"The model {self.label} {what}.")
        return self.rpcs[kind]


_KINDS_OF_RPC = ("predict", "predict_batch", "predict_many", "predict_stream")


def about(model: Any) -> bytes:
    """What of a message mlflow_grpc.v1.Model says how its messages look: equal if and only if they look the same."""
    kept = type(model)(
        input=model.input, output=model.output, params=model.params, rpcs=model.rpcs, contract=model.contract
    )
    kept.names.update(model.names)
    kept.wrappers.extend(model.wrappers)
    data: bytes = kept.SerializeToString(deterministic=True)
    return data


def label_of(model: Any) -> str:
    """What a call names a model by."""
    return f"{model.name}/{model.version}" if model.version else str(model.name)


def check_typed(model: Any) -> None:
    """Sees whether a message mlflow_grpc.v1.Model is of a model that typed calls reach.

    Raises:
        PredictError: It is not, and why.

    """
    label, state = label_of(model), model.State.Name(model.state) if model.state in model.State.values() else ""
    if state == "FAILED":
        raise failure(grpc.StatusCode.FAILED_PRECONDITION, f"The model {label} could not be loaded: {model.error}.")
    if state != "READY":
        raise failure(grpc.StatusCode.UNAVAILABLE, f"The model {label} is not ready: {state or model.state}.")
    if not model.rpcs:
        raise failure(grpc.StatusCode.UNIMPLEMENTED, f"The model {label} has no endpoint.")
    if not any(_is_typed(rpc.path) for rpc in model.rpcs):
        why = (
            "has no typed call on this server, or not yet"
            if model.HasField("input")
            else "has no signature, so no types"
        )
        said = f"The model {label} {why}: use client.predict(data, model={label!r})."
        raise failure(grpc.StatusCode.UNIMPLEMENTED, said)


def contract_of(model: Any, pool: DescriptorPool) -> Contract:
    """The contract of a model that `check_typed` lets pass.

    Raises:
        KeyError: The pool lacks one of its messages.

    """
    reader = _Reader(model)
    found = {}
    for rpc in model.rpcs:
        if _is_typed(rpc.path):
            kind = next(each for each in _KINDS_OF_RPC if rpc.path.endswith(f"_{each}"))
            request, response = (pool.FindMessageTypeByName(name) for name in (rpc.request_type, rpc.response_type))
            found[kind] = Rpc(
                rpc.path,
                message_factory.GetMessageClass(request),
                reader.record(request),
                message_factory.GetMessageClass(response),
                reader.record(response),
                next((each.name for each in response.fields if _is_error(each)), ""),
            )
    return Contract(label_of(model), about(model), found, reader.params, model.contract)


def _is_typed(path: str) -> bool:
    return path.startswith(f"/{SERVICE}/") and path.endswith(tuple(f"_{kind}" for kind in _KINDS_OF_RPC))


class _Reader:
    """Reads the descriptors of one model's messages."""

    def __init__(self, model: Any) -> None:
        self._names = dict(model.names)
        self._wrappers = frozenset(model.wrappers)
        self._columns = _column_messages(model)
        self._takes_params = {rpc.request_type for rpc in model.rpcs} if model.HasField("params") else set()
        self._known: dict[str, Record] = {}
        self.params: Field | None = None

    def record(self, descriptor: Descriptor) -> Record:
        """The fields of a message without those that are not the model's: params, errors, places of nulls."""
        if descriptor.full_name not in self._known:
            self._known[descriptor.full_name] = record = Record(descriptor.full_name)
            for each in descriptor.fields:
                made = self._field(each, descriptor)
                if each.number == PARAMS_NUMBER and descriptor.full_name in self._takes_params:
                    self.params = made
                elif each.number == EXTRA_NUMBER:
                    record.extra = made
                elif each.number < NULLS_NUMBER and not _is_error(each):
                    record.add(made)
        return self._known[descriptor.full_name]

    def _field(self, each: FieldDescriptor, holder: Descriptor) -> Field:
        form = Form.LIST if _is_repeated(each) else Form.ONE
        value = each
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            form, value = Form.MAP, each.message_type.fields_by_name["value"]
        word = self._names.get(f"{self._columns.get(holder.full_name, holder.full_name)}.{each.name}", each.name)
        beside = holder.fields_by_number.get(NULLS_NUMBER + each.number)
        null = beside.name if beside is not None and not _is_repeated(beside) else ""
        within = holder.fields_by_number.get(NULL_ITEMS_NUMBER + each.number)
        null_items = within.name if within is not None and form is not Form.ONE else ""
        return Field(each.name, word, each.number, self._type(value), form, each.has_presence, null, null_items)

    def _type(self, each: FieldDescriptor) -> Type:
        if each.type in _INTEGERS:
            return Type(Kind.INTEGER, bounds=_INTEGERS[each.type])
        if each.enum_type is not None:
            words = self._words(each.enum_type)
            return Type(Kind.WORD, numbers={word: number for number, word in words.items()}, words=words)
        if each.message_type is None:
            return Type(_SCALARS[each.type])
        return self._message(each.message_type)

    def _words(self, enum: EnumDescriptor) -> dict[int, str]:
        names = {value.number: value.name for value in enum.values if value.number}
        return {number: self._names.get(f"{enum.file.package}.{name}", name) for number, name in names.items()}

    def _message(self, descriptor: Descriptor) -> Type:
        known = _KNOWN_MESSAGES.get(descriptor.full_name)
        if known is not None:
            return Type(known)
        if descriptor.full_name in self._wrappers:
            kind = Kind.TENSOR if "shape" in descriptor.fields_by_name else Kind.BOX
        else:
            kind = Kind.UNION if "value" in descriptor.oneofs_by_name else Kind.RECORD
        return Type(kind, record=self.record(descriptor))


def _column_messages(model: Any) -> dict[str, str]:
    """The messages that hold columns, and the one that their names stand for: that of a batch has those of a record."""
    single: dict[str, Any] = next(
        ({"in": rpc.request_type, "out": rpc.response_type} for rpc in model.rpcs if rpc.path.endswith("_predict")), {}
    )
    columns = {}
    for rpc in _typed_rpcs(model):
        columns[rpc.request_type] = single.get("in", rpc.request_type)
        columns[rpc.response_type] = single.get("out", rpc.response_type)
    return columns


def _typed_rpcs(model: Any) -> Iterator[Any]:
    return (rpc for rpc in model.rpcs if _is_typed(rpc.path))


def _is_error(each: FieldDescriptor) -> bool:
    message = each.message_type.full_name if each.message_type is not None else ""
    return each.number == ERROR_NUMBER and message == ERROR_MESSAGE


def _is_repeated(each: FieldDescriptor) -> bool:
    # protobuf 7 warns of `label`, and protobuf 5 has nothing else.
    repeated: Any = getattr(each, "is_repeated", None)
    label: Any = getattr(each, "label", None) if repeated is None else None
    return label == FieldDescriptor.LABEL_REPEATED if repeated is None else bool(repeated)
