"""proto_text.py: protoc makes of the text the descriptors that the server has."""

import keyword
import re
import subprocess
import sys
import unicodedata

import pytest
from _mlflow_grpc_protocol import proto_text
from google.protobuf import descriptor_pb2

from mlflow_grpc.contract import comments, messages, mlflow_schema, plan, service
from mlflow_grpc.contract.json_schema import record_of
from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.types import Contract, DataType, Enumeration, Field, MapOf, Record, Scalar
from tests.support import newer_models, zoo


def file_of(**contracts):
    maker = messages.FileMaker()
    service.add_service(maker.file, [maker.add(name, contract) for name, contract in contracts.items()])
    return maker


def planned(contract, locked=None):
    """The file of one model, called m."""
    return plan.make_file([plan.TypedModel("m", contract, locked)], LockSet())[0]


def text_of(maker):
    """The text, with comments."""
    return proto_text.text_of(comments.described(maker.file, maker.comments))


def compiled(text, tmp_path, *flags):
    """What protoc makes of a text; the JSON names that it adds are those that it makes itself."""
    (tmp_path / messages.FILE).write_text(text)
    out = tmp_path / "set.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--descriptor_set_out={out}"]
    done = subprocess.run([*command, *flags, messages.FILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    for message in file.message_type:
        for nested in (message, *message.nested_type):
            for field in nested.field:
                field.ClearField("json_name")
    return file


def in_order(file):
    """A file without the order of its enums among its messages, which a text keeps apart."""
    for message in file.message_type:
        # protoc lists the oneofs of `optional` fields after all others.
        message.ClearField("oneof_decl")
        for field in message.field:
            field.ClearField("oneof_index")
    return file


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


@pytest.mark.parametrize("name", CONTRACTS)
def test_text_and_descriptors_are_the_same(name, tmp_path):
    """For signatures of every kind, and for a schema of every kind of field."""
    maker = file_of(**{name: CONTRACTS[name]})
    expected = in_order(descriptor_pb2.FileDescriptorProto.FromString(maker.file.SerializeToString()))
    assert in_order(compiled(text_of(maker), tmp_path)) == expected


@pytest.mark.parametrize("name", CONTRACTS)
def test_comments_stand_where_protoc_finds_them(name, tmp_path):
    """The source_code_info of the descriptors is what protoc makes of the text: comments, and where declarations are."""
    described = comments.described((maker := file_of(**{name: CONTRACTS[name]})).file, maker.comments)
    compiled_file = compiled(proto_text.text_of(described), tmp_path, "--include_source_info")
    # protoc has more places, such as those of names and of types.
    expected = {tuple(location.path): location for location in compiled_file.source_code_info.location}
    assert len(described.source_code_info.location) > 10
    for location in described.source_code_info.location:
        assert location == expected.pop(tuple(location.path))
    assert not [location for location in expected.values() if location.leading_comments or location.trailing_comments]


def test_what_the_writer_does_not_know(tmp_path):
    """A file with messages within messages, or in proto2, is refused instead of being written in part."""
    nested = descriptor_pb2.FileDescriptorProto(name="x.proto", syntax="proto3")
    nested.message_type.add(name="a").nested_type.add(name="b")
    for file in (nested, descriptor_pb2.FileDescriptorProto(name="x.proto")):
        with pytest.raises(ValueError, match=r"x\.proto is not in proto3, or has"):
            proto_text.text_of(file)


def test_all_in_one_file(tmp_path):
    """No name is given twice, whatever the models are."""
    maker = file_of(**CONTRACTS)
    assert len(compiled(text_of(maker), tmp_path).message_type) > 50


def test_names_that_are_none():
    """They become identifiers, each of its own; the comment has the name that the model knows."""
    names = ["a b", "a_b", "aB", "1st", "", "class", "é", "message", "a*/b\n// c", "_"]
    record = Record("input", [Field(name, Scalar(DataType.DOUBLE)) for name in names])
    maker = file_of(odd=Contract(record, record))
    (message,) = (candidate for candidate in maker.file.message_type if candidate.name == "odd_input")
    field_names = [field.name for field in message.field]
    assert field_names[:4] == ["a_b", "a_b_2", "aB_3", "field_4_1st"]
    assert len(set(field_names)) == len(names)
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in field_names)
    text = text_of(maker)
    assert '// In the model: "a b".' in text
    assert '// In the model: "a*/b\\n// c".' in text


@pytest.mark.parametrize(
    "description", ["nul \x00 in it", "\x1b[31mred\x7f", "\x85\u2028next\x0bline\x1c", "lone \ud800", "*/ \x9f"]
)
def test_descriptions_of_what_no_text_can_show(description, tmp_path):
    """Control characters and lone surrogates are replaced, and stand in no comment's way; letters stay."""
    record = Record("in", [Field("a", Enumeration("E", ("x", description)), description=description)], description)
    maker = file_of(m=Contract(record, Record("out", [Field("b", TEXT, required=False, default=description)])))
    text = text_of(maker)
    expected = in_order(descriptor_pb2.FileDescriptorProto.FromString(maker.file.SerializeToString()))
    assert in_order(compiled(text, tmp_path)) == expected
    assert all(word in text for word in re.findall(r"[a-z]{3,}", description))
    assert not [
        character for character in text if unicodedata.category(character) in ("Cc", "Cs") and character != "\n"
    ]


MAP, TEXT = MapOf(Scalar(DataType.LONG)), Scalar(DataType.STRING)
FIELDS = {
    "map": Field("a", MAP),
    "default": Field("part", MAP, required=False, default={}),
    "nullable": Field("b_c", MAP, nullable=True),
    "entry": Field("AEntry", TEXT),
    "entry of a map": Field("PartEntry", MAP),
    "entry of no map": Field("BCEntry", TEXT),
    "like an entry": Field("part_entry", TEXT),
    "many": Field("PartEntryEntry", TEXT),
}


@pytest.mark.parametrize("before", [None, "lock", "lock of others", "lock of no maps", "lock of both"])
@pytest.mark.parametrize("turned", [False, True])
def test_columns_called_like_the_type_of_a_map(turned, before, tmp_path):
    """protoc makes a type for each map, PartEntry for part; in any order, and whatever names a lock has."""
    columns = list(FIELDS.values())[:: -1 if turned else 1]
    old = {
        "lock": columns[::2],
        "lock of others": [Field("AEntry", MAP), Field("PartEntry", TEXT)],
        "lock of no maps": [Field(column.name, TEXT) for column in columns],
    }
    locked = None
    if before == "lock of both":
        # As one that was made before the names of these types were looked at.
        fields = {"a": lock_format.LockedField(name="a", number=1, type="map<string, int64>"),
                  "AEntry": lock_format.LockedField(name="AEntry", number=2, type="optional string")}  # fmt: skip
        locked = lock_format.LockedModel(name="m", input="input", output="output", messages={
            "input": lock_format.LockedMessage(fields=fields), "output": lock_format.LockedMessage()})  # fmt: skip
    elif before is not None:
        locked = planned(Contract(Record("in", old[before]), Record("out", columns[:1]))).locks["m"]
    record = Record("in", columns)
    maker = planned(Contract(record, record), locked)
    expected = in_order(descriptor_pb2.FileDescriptorProto.FromString(maker.file.SerializeToString()))
    assert in_order(compiled(text_of(maker), tmp_path)) == expected
    names = {key: field.name for key, field in maker.locks["m"].messages["input"].fields.items()}
    assert len({name.lower() for name in names.values()}) == len(columns)
    if before == "lock" and locked is not None:
        kept = {key: field.name for key, field in locked.messages["input"].fields.items()}
        assert {key: names[key] for key in kept} == kept
    again = planned(Contract(record, record), maker.locks["m"])
    assert again.locks == maker.locks


def test_comments(tmp_path):
    """Descriptions, defaults and shapes are told where the fields are."""
    maker = file_of(params=CONTRACTS["params"], whole=CONTRACTS["whole"], tensor=CONTRACTS["tensor"])
    text = text_of(maker)
    for excerpt in (
        "Default: 0.5.",
        "Default: 7.",
        "float32, of the shape [2]",
        '"B c"',
        "Every kind of field.",
        "Format: uuid.",
    ):
        assert excerpt in text, excerpt
    assert all(len(line) <= 120 for line in text.splitlines())
