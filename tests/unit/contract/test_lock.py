"""The lock: permanent numbers and names, and a verdict on each change, verified on serialised messages."""

import dataclasses
import json
from functools import partial
from typing import Any

import pytest
from _mlflow_grpc_protocol.field_numbers import ERROR_NUMBER, NULLS_NUMBER, PARAMS_NUMBER
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mlflow_grpc import protos
from mlflow_grpc.contract import messages, mlflow_schema, plan, service
from mlflow_grpc.contract.fields import MAX_FIELDS, PACKAGE
from mlflow_grpc.contract.json_schema import record_of
from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.compatibility import Side, changes
from mlflow_grpc.contract.lockfile.format import LockedModel, LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.types import (
    ANY_CHUNK,
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
    Union,
)
from mlflow_grpc.errors import InvalidPayload, StartError, UnserializableOutput
from mlflow_grpc.payload.protobuf.reader import Reader
from mlflow_grpc.payload.protobuf.writer import fill
from tests.support import newer_models, zoo
from tests.support.depth import examples
from tests.unit.contract.test_proto_text import compiled, in_order, text_of

LONG, DOUBLE, TEXT, MOMENT = (
    Scalar(data_type) for data_type in (DataType.LONG, DataType.DOUBLE, DataType.STRING, DataType.DATETIME)
)
COLOR = Enumeration("Color", ("red", "blue"))
MORE_COLORS = Enumeration("Color", ("green", "blue", "red"))
KEEP = Field("keep", DOUBLE)


def nested(*fields):
    """Makes a nested record whose class has another name in each version."""
    return Record("Part", list(fields))


class Version:
    """One version of a model: its messages, as classes, and the lock after it."""

    def __init__(self, contract, before=None, name="m"):
        self.maker = messages.FileMaker([before] if before else [])
        model = self.maker.add(name, contract, before)
        service.add_service(self.maker.file, [model])
        self.messages: Any = model
        self.lock = self.maker.locks[name]
        self.pool = protos.pool_with(self.maker.file)

    def message(self, shape):
        return protos.message_class(self.pool.FindMessageTypeByName(f"{PACKAGE}.{shape.name}"))()

    def fields(self, role="input"):
        return {key: (field.name, field.number) for key, field in self.lock.messages[role].fields.items()}

    @property
    def text(self):
        return text_of(self.maker)


def versions(old, new, *, side=Side.CALLS):
    """Makes two consecutive versions whose calls or answers have these fields."""
    pair, before = [], None
    for fields in (old, new):
        record = Record("part", fields)
        unchanged = Record("rest", [KEEP])
        contract = Contract(record, unchanged) if side is Side.CALLS else Contract(unchanged, record)
        pair.append(Version(contract, before))
        before = pair[-1].lock
    return pair


def written(version, shape, record):
    message = version.message(shape)
    fill(message, shape, record, "")
    return message.SerializeToString()


def read(version, shape, data):
    message = version.message(shape)
    message.ParseFromString(data)
    return Reader(with_zone=True).record(message, shape, "")


# For each change: the fields before and after, a record that an old client sends (or a new server answers), and True if
# calls (or answers) keep their meaning.
MAYBE: dict[str, Any] = {"required": False, "nullable": True}
LIST, LISTS = ListOf(DOUBLE), ListOf(ListOf(DOUBLE))
CALLS = {
    "nothing": ([KEEP], [KEEP], {"keep": 1.0}, True),
    "added_optional": ([KEEP], [KEEP, Field("x", LONG, **MAYBE)], {"keep": 1.0}, True),
    "added_optional_first": ([KEEP], [Field("x", LONG, **MAYBE), KEEP], {"keep": 1.0}, True),
    "added_default": ([KEEP], [KEEP, Field("x", LONG, required=False, default=7)], {"keep": 1.0}, True),
    "added_default_list": ([KEEP], [KEEP, Field("x", LIST, required=False, default=[])], {"keep": 1.0}, True),
    "added_required": ([KEEP], [KEEP, Field("x", LONG)], {"keep": 1.0}, False),
    "added_required_list": ([KEEP], [KEEP, Field("x", LIST)], {"keep": 1.0}, False),
    "removed_required": ([KEEP, Field("x", LONG)], [KEEP], {"keep": 1.0, "x": 3}, False),
    "removed_optional": ([KEEP, Field("x", LONG, **MAYBE)], [KEEP], {"keep": 1.0, "x": 3}, False),
    "renamed": ([KEEP, Field("x", LONG, **MAYBE)], [KEEP, Field("y", LONG, **MAYBE)], {"keep": 1.0, "x": 3}, False),
    "reordered": (
        [KEEP, Field("x", LONG), Field("y", TEXT)], [Field("y", TEXT), KEEP, Field("x", LONG)],
        {"keep": 1.0, "x": 3, "y": "a"}, True,
    ),
    "reordered_lists": (
        [Field("x", LISTS), Field("y", LISTS)], [Field("n", LISTS, **MAYBE), Field("y", LISTS), Field("x", LISTS)],
        {"x": [[1.0]], "y": [[2.0], []]}, True,
    ),
    "type_of_scalar": ([KEEP, Field("x", LONG)], [KEEP, Field("x", DOUBLE)], {"keep": 1.0, "x": 3}, False),
    "type_to_list": ([KEEP, Field("x", DOUBLE)], [KEEP, Field("x", LIST)], {"keep": 1.0, "x": 3.0}, False),
    "type_of_list": ([KEEP, Field("x", LISTS)], [KEEP, Field("x", ListOf(ListOf(TEXT)))], {"keep": 1.0, "x": [[1.0]]}, False),
    "nulls_in_list": ([Field("x", LIST)], [Field("x", ListOf(DOUBLE, nullable=True))], {"x": [1.0]}, False),
    "list_to_map": ([Field("x", LIST)], [Field("x", MapOf(DOUBLE))], {"x": [1.0]}, False),
    "required_to_optional": ([Field("x", LONG)], [Field("x", LONG, **MAYBE)], {"x": 0}, True),
    "required_to_default": ([Field("x", LONG)], [Field("x", LONG, required=False, default=1)], {"x": 0}, True),
    "required_list_to_optional": ([Field("x", LIST)], [Field("x", LIST, **MAYBE)], {"x": [1.0]}, False),
    "required_list_to_default": ([Field("x", LIST)], [Field("x", LIST, required=False, default=[])], {"x": [1.0]}, True),
    # About rows, see test_nulls_of_a_list_that_becomes_required.
    "default_list_to_required": ([Field("x", LIST, required=False, default=[])], [Field("x", LIST)], None, False),
    "default_map_to_required": (
        [Field("x", MapOf(LONG), required=False, default={})], [Field("x", MapOf(LONG))], None, False,
    ),
    "nested_default_list_to_required": (
        [Field("x", nested(KEEP, Field("n", LIST, required=False, default=[])))], [Field("x", nested(KEEP, Field("n", LIST)))],
        {"x": {"keep": 1.0, "n": [1.0]}}, True,
    ),
    "optional_to_required": ([KEEP, Field("x", LONG, **MAYBE)], [KEEP, Field("x", LONG)], {"keep": 1.0}, False),
    # A required field can express null only by being left out. In an optional field that means the default.
    "null_to_required": ([KEEP, Field("x", LONG, nullable=True)], [KEEP, Field("x", LONG)], {"keep": 1.0, "x": None}, False),
    "null_to_optional": ([KEEP, Field("x", LONG, nullable=True)], [KEEP, Field("x", LONG, **MAYBE)], {"keep": 1.0, "x": 0}, True),
    "null_to_default": (
        [KEEP, Field("x", LONG, nullable=True)], [KEEP, Field("x", LONG, required=False, default=7)],
        {"keep": 1.0, "x": None}, False,
    ),
    "required_to_null": ([KEEP, Field("x", LONG)], [KEEP, Field("x", LONG, nullable=True)], {"keep": 1.0, "x": 0}, True),
    "default_to_null": (
        [KEEP, Field("x", LONG, required=False, default=7)], [KEEP, Field("x", LONG, nullable=True)], {"keep": 1.0}, False,
    ),
    "optional_to_null": ([KEEP, Field("x", LONG, **MAYBE)], [KEEP, Field("x", LONG, nullable=True)], {"keep": 1.0, "x": 0}, True),
    "nested_null_to_required": (
        [Field("x", nested(KEEP, Field("n", LONG, nullable=True)))], [Field("x", nested(KEEP, Field("n", LONG)))],
        {"x": {"keep": 1.0, "n": None}}, False,
    ),
    "added_null": ([KEEP], [KEEP, Field("x", LONG, nullable=True)], None, True),
    "enum_value_added": ([Field("x", COLOR)], [Field("x", MORE_COLORS)], {"x": "blue"}, True),
    "enum_value_removed": ([Field("x", MORE_COLORS)], [Field("x", COLOR)], {"x": "green"}, False),
    "enum_to_text": ([Field("x", COLOR)], [Field("x", TEXT)], {"x": "red"}, False),
    "nested_added_optional": (
        [Field("x", nested(KEEP))], [Field("x", nested(Field("n", LONG, **MAYBE), KEEP))], {"x": {"keep": 1.0}}, True,
    ),
    "nested_added_required": ([Field("x", nested(KEEP))], [Field("x", nested(KEEP, Field("n", LONG)))], {"x": {"keep": 1.0}}, False),
    "nested_removed": ([Field("x", nested(KEEP, Field("n", LONG)))], [Field("x", nested(KEEP))], {"x": {"keep": 1.0, "n": 2}}, False),
    "nested_renamed": ([Field("x", nested(KEEP))], [Field("x", Record("Piece", [KEEP]))], {"x": {"keep": 1.0}}, True),
    "another_of_the_same_class": (
        [Field("x", nested(KEEP))], [Field("n", nested(Field("z", LONG)), **MAYBE), Field("x", nested(KEEP))],
        {"x": {"keep": 1.0}}, True,
    ),
    "union_added": ([Field("x", Union((LONG, TEXT)))], [Field("x", Union((DOUBLE, TEXT, LONG)))], {"x": "a"}, True),
    "union_removed": ([Field("x", Union((LONG, TEXT, DOUBLE)))], [Field("x", Union((LONG, TEXT)))], {"x": 1.5}, False),
    "union_of_lists": (
        [Field("x", Union((ListOf(LONG), TEXT)))], [Field("x", Union((TEXT, ListOf(DOUBLE), ListOf(LONG))))], {"x": [1]}, True,
    ),
    "map_values": ([Field("x", MapOf(LONG))], [Field("x", MapOf(DOUBLE))], {"x": {"a": 1}}, False),
    "format": ([Field("x", TEXT)], [Field("x", Scalar(DataType.STRING, "date"))], {"x": "2020-02-29"}, False),
    "no_format": ([Field("x", Scalar(DataType.STRING, "date"))], [Field("x", TEXT)], {"x": "2020-02-29"}, True),
    "unnamed_more": ([Field("", LONG), Field("", TEXT)], [Field("", LONG), Field("", TEXT), Field("", LONG)], None, False),
}  # fmt: skip
ANSWERS = {
    "added": ([KEEP], [Field("x", LONG), KEEP], {"keep": 1.0, "x": 2}, True),
    "removed": ([KEEP, Field("x", LONG)], [KEEP], {"keep": 1.0}, False),
    "reordered": ([KEEP, Field("x", LONG)], [Field("x", LONG), KEEP], {"keep": 1.0, "x": 2}, True),
    "type": ([Field("x", LONG)], [Field("x", DOUBLE)], {"x": 2.0}, False),
    "may_be_absent": ([Field("x", LONG)], [Field("x", LONG, **MAYBE)], {}, False),
    "always_there": ([Field("x", LONG, **MAYBE)], [Field("x", LONG)], {"x": 0}, True),
    "has_default": ([Field("x", LONG)], [Field("x", LONG, required=False, default=1)], {"x": 0}, True),
    "enum_value_added": ([Field("x", COLOR)], [Field("x", MORE_COLORS)], {"x": "green"}, False),
    "enum_value_removed": ([Field("x", MORE_COLORS)], [Field("x", COLOR)], {"x": "red"}, True),
    "union_added": ([Field("x", Union((LONG, TEXT)))], [Field("x", Union((LONG, TEXT, DOUBLE)))], {"x": 1.5}, False),
    "union_removed": ([Field("x", Union((LONG, TEXT, DOUBLE)))], [Field("x", Union((DOUBLE, TEXT)))], {"x": 1.5}, True),
    "nested_added": ([Field("x", nested(KEEP))], [Field("x", nested(Field("n", LONG), KEEP))], {"x": {"keep": 1.0, "n": 2}}, True),
    "format": ([Field("x", TEXT)], [Field("x", Scalar(DataType.STRING, "date"))], {"x": "2020-02-29"}, True),
    "no_format": ([Field("x", Scalar(DataType.STRING, "date"))], [Field("x", TEXT)], {"x": "any"}, False),
}  # fmt: skip


def known_part(record, old):
    """Returns the part of an answer that an old client knows."""
    keys = {field.name for field in old}
    return {
        key: known_part(value, next(field.type.fields for field in old if field.name == key)) if isinstance(value, dict) else value
        for key, value in record.items()
        if key in keys
    }  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_calls_of_old_clients(case):
    """A compatible change keeps every value in an old client's message; an incompatible one does not."""
    old_fields, new_fields, record, same = CALLS[case]
    old, new = versions(old_fields, new_fields)
    differences = changes(old.lock, new.lock)
    assert any(change.breaks for change in differences) != same, differences
    assert {change.side for change in differences} <= {Side.CALLS}
    if record is None:
        return
    data = written(old, old.messages.input, record)
    if same:
        assert read(new, new.messages.input, data) == record
    elif case not in ("added_required", "optional_to_required", "nested_added_required", "format"):
        # The model itself reports missing values. All other changes would lose or invent something here.
        try:
            assert read(new, new.messages.input, data) != record
        except InvalidPayload:
            assert case in ("enum_value_removed", "union_removed")


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_for_old_clients(case):
    """A compatible change keeps everything that an old client knows of an answer."""
    old_fields, new_fields, record, same = ANSWERS[case]
    old, new = versions(old_fields, new_fields, side=Side.ANSWERS)
    differences = changes(old.lock, new.lock)
    assert any(change.breaks for change in differences) != same, differences
    assert {change.side for change in differences} <= {Side.ANSWERS}
    data = written(new, new.messages.output, record)
    if same:
        assert read(old, old.messages.output, data) == known_part(record, old_fields)


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("float32 [-1, 2]", "float32 [-1, 2]", (True, True)),
        ("float32 [3]", "float32 [-1]", (True, False)),
        ("float32 [-1]", "float32 [3]", (False, True)),
        ("float32 [3]", "float32 [4]", (False, False)),
        ("float32 [3]", "float32 [3, 1]", (False, False)),
        ("float16 [3]", "float32 [3]", (True, False)),
        ("int8 [3]", "int32 [3]", (True, False)),
        ("int32 [3]", "int16 [3]", (False, True)),
        ("object [-1]", "str [-1]", (True, True)),
    ],
)
def test_changes_of_tensors(old, new, fits):
    """Values that could be sent must still be accepted, and answers must be among those possible before."""

    def field(text):
        dtype, _, shape = text.partition(" ")
        return [Field("x", Tensor(dtype, (7, *json.loads(shape))))]

    for side, good in zip((Side.CALLS, Side.ANSWERS), fits, strict=True):
        before, after = versions(field(old), field(new), side=side)
        assert [change.breaks for change in changes(before.lock, after.lock)] == ([] if old == new else [not good])


def test_numbers_and_names_are_permanent():
    """A removed column is reserved and gets its own number back. A column with another type gets a new number and keeps
    its name. A new column gets the number after the highest. No column takes a present or former name of another one.
    """
    first = Version(Contract(Record("", [Field("a b", LONG), Field("x", LONG), KEEP])))
    assert first.fields() == {"a b": ("a_b", 1), "x": ("x", 2), "keep": ("keep", 3)}
    second = Version(Contract(Record("", [Field("a_b", LONG), Field("a b", LONG), Field("x", TEXT)])), first.lock)
    assert second.fields() == {"a_b": ("a_b_2", 5), "a b": ("a_b", 1), "x": ("x", 4)}
    assert [field.name for field in second.messages.input.fields] == ["a_b_2", "a_b", "x"]
    for line in ("reserved 2, 3;", 'reserved "keep";', "optional string x = 4;"):
        assert line in second.text
    third = Version(Contract(Record("", [KEEP, Field("Keep", LONG), Field("x", LONG)])), second.lock)
    assert third.fields() == {"keep": ("keep", 3), "Keep": ("Keep_2", 7), "x": ("x", 6)}
    assert 'reserved "a_b", "a_b_2";' in third.text


def test_enum_values_are_permanent():
    """An enum value keeps its number at any position, and a removed one is reserved."""
    _, new = versions([Field("x", Enumeration("C", ("a", "b", "c")))], [Field("x", Enumeration("C", ("d", "c", "a")))])
    (enum,) = new.maker.file.enum_type
    assert [(value.name, value.number) for value in enum.value] == [
        ("M_C_UNSPECIFIED", 0), ("M_C_A", 1), ("M_C_C", 3), ("M_C_D", 4),
    ]  # fmt: skip
    assert (list(enum.reserved_name), [(span.start, span.end) for span in enum.reserved_range]) == (["M_C_B"], [(2, 2)])


@pytest.mark.parametrize("start", [998, pytest.param(18_999, marks=pytest.mark.deep)])
def test_columns_skip_reserved_numbers(start):
    """Columns skip 1000 to 1099, which are for other fields, and 19000 to 19999, which protobuf reserves."""
    fields = [Field(f"c{number}", Scalar(DataType.BOOLEAN), **MAYBE) for number in range(1, start + 4)]
    params = Record("params", [Field("c1001", LONG, required=False, default=1)])
    version = Version(Contract(Record("", fields), None, params))
    numbers = [field.number for field in version.messages.input.fields]
    assert len(set(numbers)) == len(fields)
    assert not {*range(1000, 1100), *range(19_000, 20_000)} & set(numbers)
    assert numbers == sorted(numbers)
    descriptor = version.message(version.messages.input).DESCRIPTOR
    assert descriptor.fields_by_number[1000].name == version.messages.params_field == "params"
    # A lock of 998 columns continues with the same numbers.
    before = Version(Contract(Record("", fields[:start])))
    after = Version(Contract(Record("", fields), None, params), before.lock)
    assert [field.number for field in after.messages.input.fields] == numbers


def test_params_keep_their_field():
    """A column called params does not take the field's name, and a removed param is reserved."""
    params = Record(
        "params", [Field("a", LONG, required=False, default=1), Field("b", LONG, required=False, default=1)]
    )
    old = Version(Contract(Record("", [KEEP]), None, params))
    fewer = Record("params", params.fields[1:])
    columns = Record("", [Field("params", nested(KEEP), **MAYBE), KEEP])
    new = Version(Contract(columns, None, fewer), old.lock)
    assert (new.messages.params_field, new.fields()["params"]) == ("params", ("params_2", 2))
    assert new.fields("params") == {"b": ("b", 2)}
    assert [str(change) for change in changes(old.lock, new.lock) if change.breaks] == [
        "input.(params).a: removed: what old clients send there would be lost"
    ]
    gone = Version(Contract(columns), new.lock)
    assert "reserved 1000;" in gone.text
    back = Version(Contract(columns, None, fewer), gone.lock)
    assert back.fields("params") == {"b": ("b", 2)}


def test_a_column_named_like_the_params_key():
    """A column with this name is still a column, alone and beside others."""
    for more in ([], [KEEP]):
        version = Version(
            Contract(
                Record("in", [Field(lock_format.PARAMS_KEY, LONG), *more]), Record("out", [KEEP]), Record("", [KEEP])
            )
        )
        numbers = {key: number for key, (_, number) in version.fields().items()}
        assert numbers == {
            "(params) (2)": 1,
            **({"keep": 2} if more else {}),
            lock_format.PARAMS_KEY: PARAMS_NUMBER,
        }


def test_models_keep_their_names():
    """Two models whose names map to the same identifier keep their prefixes, in any order."""
    contract = Contract(Record("", [KEEP]))
    maker = messages.FileMaker()
    bases = {name: maker.add(name, contract).base for name in ("a.b", "a-b")}
    assert bases == {"a.b": "a_b", "a-b": "a_b_2"}
    again = messages.FileMaker(maker.locks.values())
    assert {name: again.add(name, contract, maker.locks.get(name)).base for name in ("a_b", "a-b", "a.b")} == {
        **bases, "a_b": "a_b_3",
    }  # fmt: skip


def test_unnamed_columns_are_identified_by_position():
    """Unnamed columns are identified by position. A model whose output gets a signature keeps the name of its only
    field."""
    old = Version(Contract(Tensor("float64", (-1,)), None))
    new = Version(Contract(Record("", [Field("", LONG), Field("", TEXT)]), Record("", [Field("", LONG)])), old.lock)
    assert new.fields() == {"0": ("column_0", 2), "1": ("column_1", 3)}
    assert new.fields("output") == {"prediction": ("prediction", 2)}


CONTRACTS = {
    **{
        name: mlflow_schema.contract_of(signature.to_dict())
        for name, signature in zoo._signatures().items()
        if signature is not None
    },
    "whole": Contract(
        record_of(newer_models.AllTypes.model_json_schema(), "input"),
        record_of(newer_models.AllTypes.model_json_schema(), "output"),
    ),
}


def turned(record):
    return Record(record.name, record.fields[::-1], record.description) if isinstance(record, Record) else record


def test_reordered_unnamed_columns_break_clients():
    """Another type at a position of an unnamed column breaks old clients."""
    first = Version(CONTRACTS["unnamed"])
    assert changes(first.lock, Version(CONTRACTS["unnamed"], first.lock).lock) == []
    second = Version(Contract(turned(CONTRACTS["unnamed"].inputs)), first.lock)
    assert [(change.path, change.breaks) for change in changes(first.lock, second.lock)] == [
        ("input.0", True), ("input.1", True),
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(CONTRACTS.keys() - {"unnamed"}))
def test_the_order_of_columns_does_not_matter(name):
    """With a lock, the same model with reordered columns has the same messages and the same lock text."""
    contract = CONTRACTS[name]
    first = Version(contract)
    text = lock_format.text_of(LockFile(models={"m": first.lock}))
    read_back = lock_format.parse(text, "a lock").models["m"]
    assert read_back == first.lock
    turned_contract = Contract(turned(contract.inputs), turned(contract.outputs), turned(contract.params))
    second = Version(turned_contract, read_back)
    assert by_name(second.maker.file) == by_name(first.maker.file)
    assert lock_format.text_of(LockFile(models={"m": second.lock})) == text
    assert changes(first.lock, second.lock) == []


def by_name(file):
    """Sorts the messages of a file by name, and drops its oneofs, whose order depends on the order of creation."""
    file = in_order(type(file).FromString(file.SerializeToString()))
    file.message_type.sort(key=lambda message: message.name)
    file.enum_type.sort(key=lambda enum: enum.name)
    return file


def test_protoc_accepts_reserved_numbers_and_names(tmp_path):
    """The text of a second version, with reserved numbers and names, compiles to its descriptors."""
    colors, fewer = Field("c", MORE_COLORS), Field("c", COLOR)
    gone = Contract(Record("", [Field("x", LONG), Field("y", LONG), colors]), Record("", [KEEP]))
    old = Version(gone)
    new = Version(Contract(Record("", [Field("x", TEXT), fewer]), Record("", [])), old.lock)
    assert in_order(compiled(new.text, tmp_path)) == in_order(
        type(new.maker.file).FromString(new.maker.file.SerializeToString())
    )


TYPES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([LONG, DOUBLE, TEXT, MOMENT, AnyValue(), COLOR, MORE_COLORS]),
    lambda kinds: st.one_of(
        st.builds(ListOf, kinds, st.booleans()),
        st.builds(MapOf, kinds, st.booleans()),
        st.builds(lambda pair: Union(tuple(dict.fromkeys(pair))), st.tuples(st.just(LONG), kinds)),
        st.builds(lambda fields: Record("Part", fields), st.deferred(lambda: FIELDS)),
    ),
    max_leaves=4,
)
FIELDS: st.SearchStrategy[Any] = st.lists(
    st.builds(
        lambda name, data_type, how: Field(name, data_type, **how),
        st.sampled_from("abcd"),
        TYPES,
        st.sampled_from([{}, MAYBE, {"required": False, "default": []}]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda field: field.name,
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(FIELDS, min_size=2, max_size=4))
def test_no_number_is_used_twice(history):
    """However often a model changes, a number in a message only ever belongs to one field of one type."""
    meaning: dict[tuple[str, int], tuple[str, str]] = {}
    names: dict[tuple[str, str], str] = {}
    before = LockedModel()
    for fields in history:
        version = Version(Contract(Record("in", fields), Record("out", fields[::-1])), before if before.name else None)
        for role, members in version.lock.messages.items():
            for key, field in members.fields.items():
                assert meaning.setdefault((role, field.number), (key, field.type)) == (key, field.type)
                assert names.setdefault((role, field.name), key) == key
        assert (
            lock_format.parse(lock_format.text_of(LockFile(models={"m": version.lock})), "").models["m"] == version.lock
        )
        same = Version(Contract(Record("in", fields[::-1]), Record("out", fields)), version.lock)
        assert changes(version.lock, same.lock) == []
        before = version.lock


def values(data_type):
    """Draws values of a type, as a writer takes them."""
    match data_type:
        case Enumeration():
            return st.sampled_from(data_type.values)
        case ListOf():
            return st.lists(values(data_type.items) | (st.none() if data_type.nullable else st.nothing()), max_size=3)
        case MapOf():
            inner = values(data_type.values) | (st.none() if data_type.nullable else st.nothing())
            return st.dictionaries(st.sampled_from("xyz"), inner, max_size=2)
        case Union():
            return st.one_of(*map(values, data_type.alternatives))
        case Record():
            return st.fixed_dictionaries({field.name: values(field.type) for field in data_type.fields})
        case _:
            return {
                AnyValue(): st.sampled_from([1, "a", {"b": [None]}, [0.5]]),
                LONG: st.integers(-(2**63), 2**63 - 1),
                DOUBLE: st.floats(allow_nan=False),
                TEXT: st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
                MOMENT: st.datetimes(),
            }[data_type]


@settings(max_examples=examples(150), deadline=None)
@given(FIELDS, FIELDS, st.data())
def test_reordered_and_added_columns_are_compatible(fields, more, data):
    """For fields of all types, each value in an old client's message is read unchanged."""
    added = [Field(f"new_{field.name}", field.type, **MAYBE) for field in more]
    old, new = versions(fields, data.draw(st.permutations([*fields, *added])))
    assert not any(change.breaks for change in changes(old.lock, new.lock))
    record = data.draw(values(Record("", fields)))
    try:
        sent = written(old, old.messages.input, record)
    except UnserializableOutput:
        reject()  # The value fits several types of a union.
    assert read(new, new.messages.input, sent) == read(old, old.messages.input, sent)


def valid():
    return json.loads(
        lock_format.text_of(LockFile(models={"m": Version(Contract(Record("", [KEEP, Field("x", COLOR)]))).lock}))
    )


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda document: document.update(format=2), "is a lock file of format 2, and this mlflow-grpc reads 1: update"),
        (lambda document: document.update(format="1"), "has no format"),
        (lambda document: document.update(format=True), "has no format"),
        (lambda document: document.update(format=0), "is not a valid lock file: format"),
        (lambda document: document.update(models=[]), "is not a valid lock file: models"),
        (lambda document: document.update(more=1), "more: Extra inputs"),
        (lambda document: fields(document)["x"].update(number=1), "number 1 is used twice: 'keep', 'x'"),
        (lambda document: fields(document)["x"].update(number=0), "greater than or equal to 1"),
        (lambda document: fields(document)["x"].update(number="2"), "valid integer"),
        (lambda document: fields(document)["x"].update(number=19_500), "number 19500 is out of range"),
        (lambda document: fields(document)["x"].update(number=100_000), "number 100000 is out of range (1 to 99999,"),
        (lambda document: fields(document)["x"].update(number=2**29), "is out of range"),
        (lambda document: fields(document).update({"(x)": {"name": "z", "number": 1000}}), "number 1000 of '(x)' is invalid: 1000 to 1099 are not for columns"),
        (lambda document: fields(document).update({"(params)": {"name": "z", "number": 7}}), "number 7 of '(params)' is invalid: it must be 1000"),
        (lambda document: document["models"]["m"]["messages"]["input"].update(reserved=[1001]), "number 1001 of 'reserved' is invalid"),
        (lambda document: document["models"]["m"].update(name="my words"), "is not a valid lock file: models.m.name: String should match"),
        (lambda document: document["models"]["m"].update(rpcs=["a b"]), "is not a valid lock file: models.m.rpcs.0"),
        (lambda document: document["models"]["m"].update(output="input"), "models.m: input is the message of both calls and answers"),
        (lambda document: fields(document)["x"].update(number=1000), "number 1000 of 'x' is invalid: 1000 to 1099 are not for columns"),
        (lambda document: fields(document)["x"].update(name="Keep"), "the name Keep is used twice"),
        (lambda document: fields(document)["x"].update(name="a b"), "models.m.messages.input.fields.x.name"),
        (lambda document: fields(document)["x"].update(type="optional enum Nope"), "messages.input.x: there is no enum Nope"),
        (lambda document: fields(document)["x"].update(type="message Color"), "there is no message Color"),
        (lambda document: document["models"]["m"].update(input="nope"), "there is no message nope"),
        (lambda document: document["models"].update(n=document["models"]["m"]), "two models have the name m"),
        (lambda document: document["models"]["m"]["messages"]["Color"]["fields"]["red"].update(name="Unspecified"), "is not valid in protobuf"),
        (lambda document: document["models"]["m"]["messages"]["input"].update(reserved=[2]), "number 2 is used twice"),
        (lambda document: document["models"]["m"]["messages"]["input"].update(removed={"x": fields(document)["x"]}), "'x' is both a field and a removed field"),
    ],
)  # fmt: skip
def test_invalid_locks_are_refused(spoil, text):
    """The one-line error has the file, the path in it, and the problem."""
    document = valid()
    spoil(document)
    with pytest.raises(StartError) as caught:
        lock_format.parse(json.dumps(document), "some.json")
    assert str(caught.value).startswith("some.json ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_duplicate_columns_of_a_merge_are_an_error():
    """A column that occurs twice is an error; the last one does not silently win."""
    text = json.dumps(valid()).replace('"fields": {"keep"', '"fields": {"keep": {}, "keep"', 1)
    with pytest.raises(StartError, match="the key 'keep' occurs twice in an object"):
        lock_format.parse(text, "some.json")
    with pytest.raises(StartError, match="is not a valid lock file"):
        lock_format.parse("[" * 100_000, "some.json")


def fields(document):
    return document["models"]["m"]["messages"]["input"]["fields"]


def test_files_are_written_and_read(tmp_path):
    """A written file is read back, a symbolic link stays one, no other file is left, and unreadable files are errors."""
    lock_file = LockFile(models={"m": Version(CONTRACTS["whole"]).lock})
    path, link = tmp_path / "there.json", tmp_path / "link.json"
    link.symlink_to(path)
    lock_io.write(link, lock_file)
    assert (lock_io.read(link), link.is_symlink(), {entry.name for entry in tmp_path.iterdir()}) == (
        lock_file,
        True,
        {"link.json", "there.json"},
    )
    text = path.read_text()
    assert text.endswith("}\n")
    assert '        "input": {\n          "fields": {\n            "integer": {"name": "integer", "number": 1,' in text
    for name, data, refusal in (
        ("binary", b"\xff", "not UTF-8"),
        ("text", b"x", "not JSON"),
        ("nope", None, "make one with"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(StartError, match=refusal):
            lock_io.read(tmp_path / name)


def test_numbers_are_exhausted_with_an_error():
    """A lock that has used the last number has none for a new column, which is an error."""
    before = Version(Contract(Record("", [KEEP]))).lock
    last = before.messages["input"].fields["keep"].model_copy(update={"number": lock_format.MAX_FIELD_NUMBER})
    full = before.messages["input"].model_copy(update={"fields": {"keep": last}})
    before = before.model_copy(update={"messages": {**before.messages, "input": full}})
    with pytest.raises(StartError, match="no number left for 'x'"):
        Version(Contract(Record("", [KEEP, Field("x", LONG)])), before)


def test_recursive_records_keep_their_messages():
    """Wrappers of recursive records are needed before they are complete. Their messages are permanently the same with a
    lock and without."""

    def contract(*first):
        tree = Record("Tree", [])
        tree.fields += [*first, Field("children", ListOf(ListOf(tree)), **MAYBE), Field("next", tree, **MAYBE)]
        return Contract(Record("", [Field("trees", ListOf(ListOf(tree)))]), Record("", [Field("tree", tree)]))

    first = Version(contract())
    second = Version(contract(Field("more", ListOf(ListOf(LONG)), **MAYBE)), first.lock)
    third = Version(contract(), second.lock)
    assert [str(change) for change in changes(first.lock, second.lock)] == [
        "input.trees.more: added: old clients leave it out",
        "output.tree.more: added: old clients do not see it",
    ]
    record: dict[str, Any] = {"trees": [[{"children": [[{}]], "next": {}}], []]}
    data = written(first, first.messages.input, record)
    assert read(second, second.messages.input, data) == read(third, third.messages.input, data) == record


def test_the_lock_that_applies_to_a_model():
    """The lock is that in the file, else that in the directory: under the model's name, or the only one under any name."""
    first = Version(Contract(Record("", [KEEP])), name="one").lock
    second = Version(Contract(Record("", [Field("x", LONG), KEEP])), name="two").lock
    locks = LockSet(LockFile(models={"a": first}), "a file")
    model_locks = LockFile(models={"b": second})
    assert locks.find("a", model_locks) == first
    assert locks.find("b", model_locks) == second
    assert locks.find("c", model_locks) == second.model_copy(update={"name": ""})
    assert locks.find("b", LockFile(models={"b": first})) == first.model_copy(update={"name": ""})
    assert locks.find("c", None) is locks.find("c", LockFile()) is None
    with pytest.raises(StartError, match="has no c, but a, b: keep only the model's own"):
        locks.find("c", LockFile(models={"a": first, "b": second}))
    assert not plan.verdict(locks, "c", None, None).breaking
    assert "it no longer has typed RPCs" in plan.verdict(locks, "a", None, None).refusal
    written_anew = locks.updated({"b": second})
    assert (written_anew.models["a"].removed, written_anew.models["a"].messages) == (True, first.messages)
    assert [verdict.lock_key for verdict in locks.missing({"b"})] == ["a"]
    assert not LockSet(written_anew).missing({"b"})
    assert not plan.verdict(LockSet(written_anew), "a", None, None).breaking


def test_columns_with_the_same_name():
    """MLflow allows two columns of the same name; each has its own number."""
    twins = [Field("x", LONG), Field("x", LONG)]
    old, new = versions(twins, [*twins, Field("y", LONG, **MAYBE)])
    assert new.fields() == {"x": ("x", 1), "x (2)": ("x_2", 2), "y": ("y", 3)}
    assert dataclasses.asdict(changes(old.lock, new.lock)[0])["path"] == "input.y"


BEFORE_NULLS_WITHIN = """{
  "format": 1,
  "models": {
    "m": {
      "name": "m",
      "rpcs": ["predict", "predict_batch", "predict_many"],
      "input": "input",
      "output": "output",
      "messages": {
        "input": {
          "fields": {
            "v": {"name": "v", "number": 1, "type": "repeated double", "required": true},
            "w": {"name": "w", "number": 2, "type": "message w_values", "nullable": true}
          }
        },
        "output": {
          "fields": {
            "v": {"name": "v", "number": 1, "type": "repeated double", "required": true},
            "v_null_items": {"name": "v_null_items", "number": 2, "type": "repeated string", "required": true},
            "x": {"name": "x", "number": 3, "type": "repeated message x_values", "required": true}
          }
        },
        "w_values": {
          "kind": "wrapper",
          "fields": {
            "values": {"name": "values", "number": 1, "type": "map<string, double>"}
          }
        },
        "x_values": {
          "kind": "wrapper",
          "fields": {
            "values": {"name": "values", "number": 1, "type": "repeated int64"}
          }
        }
      }
    }
  }
}
"""
"""A lock from before lists and maps of columns had fields for nulls."""

WITHIN_LISTS: dict[str, list[dict[str, Any]]] = {
    "inputs": [
        {"name": "v", "type": "array", "items": {"type": "double"}},
        {"name": "w", "type": "map", "values": {"type": "double"}, "required": False},
    ],
    "outputs": [
        {"name": "v", "type": "array", "items": {"type": "double"}},
        {"name": "v_null_items", "type": "array", "items": {"type": "string"}},
        {"name": "x", "type": "array", "items": {"type": "array", "items": {"type": "long"}}},
    ],
}
"""The signature that this lock was written for."""

BEFORE = {
    "m_input": {"v": 1, "w": 2},
    "m_inputs": {"v": 1, "w": 2, "w_nulls": 100_002},
    "m_output": {
        "v": 1, "v_null_items": 2, "x": 3, "error": 1001,
        "v_nulls": 100_001, "v_null_items_nulls": 100_002, "x_nulls": 100_003,
    },
    "m_outputs": {
        "v": 1, "v_null_items": 2, "x": 3, "v_nulls": 100_001, "v_null_items_nulls": 100_002, "x_nulls": 100_003,
    },
    "m_w_values": {"values": 1}, "m_x_values": {"values": 1}, "m_v_values": {"values": 1},
    "m_v_null_items_values": {"values": 1}, "m_x_values_2": {"values": 1},
}  # fmt: skip
"""The messages of that time, with names and numbers of their fields."""


def of_signature(parts, before=None):
    contract = mlflow_schema.contract_of({key: json.dumps(specs) for key, specs in parts.items()})
    return Version(contract, before)


@pytest.mark.parametrize("has_lock", [True, False])
def test_fields_for_nulls_keep_earlier_names_and_numbers(has_lock, tmp_path):
    """Names, numbers and the text of the lock are the same as before, with the old lock and without one."""
    old = lock_format.parse(BEFORE_NULLS_WITHIN, "old.json")
    version = of_signature(WITHIN_LISTS, old.models["m"] if has_lock else None)
    assert lock_format.text_of(LockFile(models={"m": version.lock})) == BEFORE_NULLS_WITHIN
    assert not changes(old.models["m"], version.lock)
    numbers = {
        message.name: {field.name: field.number for field in message.field}
        for message in version.maker.file.message_type
        if message.name in BEFORE
    }
    added = {
        (name, key): numbers[name].pop(key) for name in BEFORE for key in numbers[name].keys() - BEFORE[name].keys()
    }
    assert numbers == BEFORE
    assert added == {
        ("m_input", "v_null_items"): 200_001,
        ("m_w_values", "values_null_keys"): 200_001,
        ("m_output", "v_null_items_2"): 200_001,
        ("m_output", "v_null_items_null_items"): 200_002,
        ("m_output", "x_null_items"): 200_003,
        ("m_v_values", "values_null_items"): 200_001,
        ("m_x_values", "values_null_items"): 200_001,
        ("m_v_null_items_values", "values_null_items"): 200_001,
        ("m_x_values_2", "values_null_items"): 200_001,
    }
    assert "v_null_items_2" in version.text
    assert "Indices of the nulls in v, counted from 0. The value at such an index has no meaning." in version.text
    assert in_order(compiled(version.text, tmp_path)) == in_order(version.maker.file)


def test_new_columns_do_not_take_names_of_null_fields():
    """The companion fields of a locked column keep their names."""
    first = of_signature({key: specs[:1] for key, specs in WITHIN_LISTS.items()})
    text = {"type": "string", "required": False}
    more = [*WITHIN_LISTS["inputs"][:1], {"name": "v_null_items", **text}]
    second = of_signature({"inputs": more, "outputs": WITHIN_LISTS["outputs"][:1]}, first.lock)
    fields = {field.name: field.number for field in second.message(second.messages.input).DESCRIPTOR.fields}
    assert fields == {"v": 1, "v_null_items": 200_001, "v_null_items_2": 2}


def test_only_models_with_lists_have_a_new_fingerprint():
    """Clients with the messages of other models continue to work; for these models they read the messages again."""
    without = Contract(Record("in", [Field("v", LIST)]), Record("out", [Field("n", LONG)]))
    same = Contract(Record("in", [Field("v", dataclasses.replace(LIST))]), Record("out", [Field("n", LONG)]))
    beside = dataclasses.replace(LIST, undeclared_nulls=True)
    different = Contract(Record("in", [Field("v", beside)]), Record("out", [Field("n", LONG)]))
    of = [Version(contract).messages.fingerprint for contract in (without, same, different)]
    assert of[0] == of[1] != of[2]


def test_rows_in_columns_follow_from_one_row():
    """Names, numbers and reservations of rows are those of one row, and the lock has nothing else."""
    old, new = versions(
        [Field("a", LONG), Field("gone", TEXT, **MAYBE), Field("list", LIST)],
        [Field("new", TEXT, **MAYBE), Field("list", LIST), Field("a", LONG, **MAYBE)],
    )
    for version in (old, new):
        row, rows = (
            version.message(shape).DESCRIPTOR for shape in (version.messages.input, version.messages.batch.inputs)
        )
        columns = {field.name: field.number for field in rows.fields if field.number < NULLS_NUMBER}
        assert columns == {field.name: field.number for field in row.fields}
        nulls = {field.name: field.number for field in rows.fields if field.number >= NULLS_NUMBER}
        assert nulls == {
            f"{slot.name}_nulls": NULLS_NUMBER + slot.number for slot in version.messages.input.fields if slot.nullable
        }
    assert version.text.count('reserved "gone";') == 2
    data = old.message(old.messages.batch.inputs)
    data.a.extend([1, 2])
    data.list.add().values.append(0.5)
    read_by_new = new.message(new.messages.batch.inputs)
    read_by_new.ParseFromString(data.SerializeToString())
    assert (list(read_by_new.a), list(read_by_new.list[0].values)) == ([1, 2], [0.5])
    assert not any("inputs" in role for role in new.lock.messages)


def test_a_list_in_rows_keeps_its_own_message():
    """Rows of old clients are read unchanged after the last output field, a list of lists, has changed its type."""
    inputs = Record("in", [Field("v", ListOf(LONG))])
    old = Version(Contract(inputs, Record("out", [KEEP, Field("x", LISTS)])))
    new = Version(Contract(inputs, Record("out", [KEEP, Field("x", DOUBLE)])), old.lock)
    sent = old.message(old.messages.batch.inputs)
    sent.v.add().values.extend([1, 2])
    received = new.message(new.messages.batch.inputs)
    received.ParseFromString(sent.SerializeToString())
    assert list(received.v[0].values) == [1, 2]


def test_an_output_called_error_is_a_column():
    """An output called error keeps its own name and number, also after it was removed."""
    output = Record("out", [KEEP, Field("error", TEXT, **MAYBE)])
    old = Version(Contract(Record("in", [KEEP]), output))
    assert (old.messages.error_field, old.fields("output")["error"]) == ("error_2", ("error", 2))
    new = Version(Contract(Record("in", [KEEP]), Record("out", [KEEP])), old.lock)
    assert new.messages.error_field == "error_2"
    descriptor = new.message(new.messages.output).DESCRIPTOR
    assert descriptor.fields_by_number[ERROR_NUMBER].name == "error_2"


def test_nulls_of_a_list_that_becomes_required():
    """The new version would read a filler, which an old client marks as null, as a value. Therefore the change breaks."""
    old, new = versions([KEEP, Field("x", LIST, required=False, default=[])], [KEEP, Field("x", LIST)])
    sent = old.message(old.messages.batch.inputs)
    sent.keep.append(1.0)
    sent.x.add().values.append(7.0)
    sent.x_nulls.append(0)
    parsed = new.message(new.messages.batch.inputs)
    parsed.ParseFromString(sent.SerializeToString())
    assert "x_nulls" not in parsed.DESCRIPTOR.fields_by_name
    assert list(parsed.x[0].values) == [7.0]
    # Without rows, a list can only be empty.
    alone = old.lock.model_copy(update={"rpcs": ("predict", "predict_many")})
    assert not any(change.breaks for change in changes(alone, new.lock))


def test_removed_rpcs_break_clients():
    """A model that no longer streams or has rows breaks old clients. A lock that does not record RPCs is compatible."""

    def with_rpcs(contract, before=None, *, streams=False):
        maker = messages.FileMaker([before] if before else [])
        maker.add("m", contract, before, streams=streams)
        return maker.locks["m"]

    columns = Contract(Record("", [KEEP]), Record("", [KEEP]))
    old = with_rpcs(columns, streams=True)
    assert old.rpcs == ("predict", "predict_batch", "predict_many", "predict_stream")
    (gone,) = changes(old, with_rpcs(columns, old))
    assert (str(gone), gone.breaks) == ("predict_stream: removed: old clients cannot call it", True)
    (back,) = changes(with_rpcs(columns, old), with_rpcs(columns, old, streams=True))
    assert (str(back), back.breaks) == ("predict_stream: added: old clients do not call it", False)
    assert changes(old.model_copy(update={"rpcs": ()}), with_rpcs(columns, old)) == []
    rows, fixed = (Tensor("float64", shape) for shape in ((-1, 5), (5,)))
    many_fields = [Field(f"c{number}", LONG, **MAYBE) for number in range(MAX_FIELDS // 2 + 1)]
    for before, after in (
        (Contract(rows, rows), Contract(fixed, fixed)),
        (Contract(Record("", many_fields[:-1])), Contract(Record("", many_fields))),
    ):
        old = with_rpcs(before)
        assert [change.path for change in changes(old, with_rpcs(after, old)) if change.breaks] == ["predict_batch"]
    verdict = partial(plan.verdict, LockSet(LockFile(models={"m": with_rpcs(columns, streams=True)}), "a file"))
    assert verdict("m", None, columns).breaking
    assert not verdict("m", None, columns, streams=True).breaking


def locked_after(contract, before=None, *, streams=True):
    maker = messages.FileMaker([before] if before else [])
    model = maker.add("m", contract, before, streams=streams)
    return maker.locks["m"], model


def test_chunks_are_locked_like_answers():
    """Chunks keep their message and its numbers, also while the model does not stream. An old lock gets the new
    messages."""
    columns = Contract(Record("", [KEEP]), Record("", [KEEP]))
    parts = dataclasses.replace(columns, chunks=Record("", [Field("delta", LONG), Field("id", LONG)]))
    without, model = locked_after(columns)
    assert (without.chunk, model.chunk) == ("", None)
    old, model = locked_after(parts, without)
    assert (model.chunk.name, [slot.number for slot in model.chunk.fields]) == ("m_chunk", [1, 2])
    assert changes(without, old) == []
    turned = dataclasses.replace(
        columns, chunks=Record("", [Field("id", LONG), Field("more", LONG), Field("delta", LONG)])
    )
    assert [slot.number for slot in locked_after(turned, old)[1].chunk.fields] == [2, 3, 1]
    asleep, _ = locked_after(parts, old, streams=False)
    assert locked_after(turned, asleep)[1].chunk.fields[0].number == 2
    gone, _ = locked_after(dataclasses.replace(columns, chunks=Record("", [Field("id", LONG)])), old)
    assert [str(change) for change in changes(old, gone) if change.breaks] == [
        "chunk.delta: removed, and it was required: old clients would find nothing there"
    ]


def test_chunks_of_unknown_type_keep_the_locked_message():
    """Chunks of unknown type keep the locked message, an output or any JSON, and never switch to the other."""
    columns = Contract(Record("", [KEEP]), Record("", [KEEP]))
    unknown = dataclasses.replace(columns, chunks=ANY_CHUNK)
    as_output, _ = locked_after(columns)
    assert locked_after(unknown, as_output)[1].chunk is None
    as_json, model = locked_after(unknown)
    assert [(slot.name, slot.number) for slot in model.chunk.fields] == [("prediction", 1)]
    assert locked_after(columns, as_json)[1].chunk.fields[0].shape == model.chunk.fields[0].shape


def test_removing_rows_of_a_chat_api_is_compatible():
    """An old lock has an RPC for rows of a chat API, which never answered any."""
    columns = Contract(Record("", [KEEP]), Record("", [KEEP]))
    old, _ = locked_after(columns)
    verdict = partial(plan.verdict, LockSet(LockFile(models={"m": old}), "a file"))
    single = dataclasses.replace(columns, takes_rows=False)
    assert "predict_batch" not in locked_after(single, old)[0].rpcs
    assert not verdict("m", None, single, streams=True).breaking
    assert verdict("m", None, single).breaking


def test_the_map_for_extra_values_has_its_own_number():
    """The map for values without a field has its own number and name, whatever columns are added."""
    inner = Record("part", [KEEP], open=True)
    outputs = Record("", [Field("part", inner), Field("extra", LONG)], open=True)
    lock, model = locked_after(Contract(Record("", [KEEP]), outputs))
    assert (model.output.extra, [slot.name for slot in model.output.fields]) == ("extra", ["part", "extra_2"])
    assert model.output.fields[0].shape.extra == "extra"
    more = Record("", [Field("Extra", LONG), *outputs.fields], open=True)
    assert locked_after(Contract(Record("", [KEEP]), more), lock)[1].output.extra == "extra"


def clashing(*pairs):
    """Makes columns whose enums have their names, like those of a Literal."""
    return [Field(name, Enumeration(name, values)) for name, values in pairs]


@pytest.mark.parametrize(
    "columns",
    [
        clashing(("mode", ("a_b", "c")), ("mode_a", ("b", "d"))),
        clashing(("mode", ("a_unspecified", "c")), ("mode_a", ("b",))),
        clashing(("mode_a", ("b",)), ("mode", ("a_unspecified", "c"))),
        [*clashing(("MODE", ("a", "b"))), Field("x", Record("MODE_A", [KEEP]))],
        [Field("x", Record("MODE_A", [KEEP])), *clashing(("MODE", ("a", "b")))],
    ],
)
def test_enum_values_have_unique_full_names(columns):
    """Enum values share one scope with the messages. Each has a unique name there, and keeps it in a lock."""
    contract = Contract(Record("", columns))
    original = Version(contract, name="M")  # The descriptor pool accepts it.
    again = Version(Contract(Record("", [KEEP, *columns[::-1]])), original.lock, name="M")
    first, then = (
        {value.name: (enum.name, value.number) for enum in version.maker.file.enum_type for value in enum.value}
        for version in (original, again)
    )
    assert first == then


def test_locked_names_are_not_given_to_other_models():
    """No other model gets a name in the lock, or one derived from it, in any order of models and wherever the model is
    hosted."""
    columns = Contract(Record("", [Field("x", Tensor("float64", (-1, 2)))]))
    before = Version(columns, name="a_b")
    names = [message.name for message in before.maker.file.message_type if message.name.startswith("a_b_")]
    assert set(names) == {"a_b_input", "a_b_output", "a_b_inputs", "a_b_outputs", "a_b_double_tensor"}
    greedy = Contract(Record("", [Field(name, Record(name.removeprefix("a_"), [KEEP])) for name in names]))
    maker = messages.FileMaker([before.lock])
    others = {maker.add("a", greedy).base, *(message.name for message in maker.file.message_type)}
    assert not others & set(names)
    model: Any = maker.add("a_b", columns, before.lock)
    assert [message.name for message in (model.input, model.output, model.batch.inputs, model.batch.outputs)] == [
        "a_b_input", "a_b_output", "a_b_inputs", "a_b_outputs",
    ]  # fmt: skip


def test_companion_fields_keep_their_names():
    """A new column does not get the name of an old column's nulls, nor that of the error."""
    error = Contract(Record("", [Field("x", LONG, **MAYBE), KEEP]), Record("", [KEEP]))
    first = Version(error)
    new = [Field("x_nulls", LONG, **MAYBE), Field("keep_nulls", LONG), Field("x", LONG, **MAYBE), KEEP]
    second = Version(Contract(Record("", new), Record("", [Field("error", TEXT), KEEP])), first.lock)
    third = Version(Contract(Record("", new[::-1]), Record("", [Field("error", TEXT), KEEP])), second.lock)

    def names(version, shape):
        return {field.number: field.name for field in version.message(shape).DESCRIPTOR.fields}

    for version in (second, third):
        for old, now in (
            (first.messages.batch.inputs, version.messages.batch.inputs),
            (first.messages.output, version.messages.output),
            (first.messages.batch.outputs, version.messages.batch.outputs),
        ):
            assert names(first, old).items() <= names(version, now).items()
        assert names(version, version.messages.batch.inputs) == {
            1: "x", 2: "keep", 3: "x_nulls_2", 4: "keep_nulls_2", 100_001: "x_nulls", 100_003: "x_nulls_2_nulls",
        }  # fmt: skip
        assert version.messages.error_field == "error"


def test_answers_in_columns_have_fields_for_nulls():
    """Models predict None in required columns too, which the answer for one row leaves out. A tensor has no nulls."""
    output = Record("", [KEEP, Field("l", LIST), Field("t", Tensor("float64", (-1, 2)))])
    version = Version(Contract(Record("", [KEEP]), output))
    assert [column.null_rows for column in version.messages.batch.outputs.fields] == ["keep_nulls", "l_nulls", ""]
    assert [column.null_rows for column in version.messages.batch.inputs.fields] == [""]


def test_columns_named_like_methods_of_messages():
    """Generated code compiles and can read the columns; a lock that already has such names keeps them."""
    columns = Record("", [Field(name, LONG) for name in ("ByteSize", "defaultInstance", "bytesize")])
    version = Version(Contract(columns))
    names = [field.name for field in version.messages.input.fields]
    assert names == ["ByteSize_field", "defaultInstance_field", "bytesize"]
    text = lock_format.text_of(LockFile(models={"m": version.lock})).replace("_field", "")
    before = lock_format.parse(text.replace('"name": "bytesize"', '"name": "other"'), "a lock").models["m"]
    kept = Version(Contract(columns), before)
    assert [field.name for field in kept.messages.input.fields] == ["ByteSize", "defaultInstance", "other"]


def test_inconsistent_locks_are_refused():
    """A contradictory lock is an error of one line, without text from the library that checks it. Params of another
    type keep their number."""
    params = Record("params", [Field("a", LONG, required=False, default=1)])
    contract = Contract(Record("", [KEEP]), None, params)
    text = lock_format.text_of(LockFile(models={"m": Version(contract).lock}))
    before = lock_format.parse(text.replace('"type": "message params"', '"type": "string"'), "a lock").models["m"]
    assert [
        str(change).partition(":")[0] for change in changes(before, Version(contract, before).lock) if change.breaks
    ] == ["input.(params)"]
    twice = before.messages["input"].model_copy(update={"reserved": (1,)})
    before = before.model_copy(update={"messages": {**before.messages, "input": twice}})
    with pytest.raises(StartError, match=r"^the lock of m is inconsistent: .*number 1 is used twice") as caught:
        Version(contract, before)
    assert "\n" not in str(caught.value)
