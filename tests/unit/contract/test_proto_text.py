"""_mlflow_grpc_protocol/proto_text.py: protoc compiles the text to the descriptors of the server."""

import contextlib
import keyword
import os
import re
import unicodedata
from pathlib import Path

import grpc_tools
import pytest
from _mlflow_grpc_protocol import proto_text
from google.protobuf import descriptor_pb2
from grpc_tools import _protoc_compiler

from mlflow_grpc.contract import comments, messages, mlflow_schema, plan, service
from mlflow_grpc.contract.json_schema import record_of
from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.types import Contract, DataType, Enumeration, Field, MapOf, Record, Scalar
from tests.support import newer_models, zoo

PROTO_INCLUDE = Path(grpc_tools.__file__).parent / "_proto"


def file_of(**contracts):
    maker = messages.FileMaker()
    service.add_service(maker.file, [maker.add(name, contract) for name, contract in contracts.items()])
    return maker


def planned(contract, locked=None):
    """Makes the file of one model called m."""
    return plan.make_file([plan.TypedModel("m", contract, locked)], LockSet())[0]


def text_of(maker):
    """Returns the text with comments."""
    return proto_text.text_of(comments.described(maker.file, maker.comments))


@contextlib.contextmanager
def moved_stderr(file):
    """Sends what C code writes to stderr into a file."""
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def compiled(text, tmp_path, *flags):
    """Returns protoc's descriptor for a text; the JSON names that it adds must be the default ones."""
    (tmp_path / messages.FILE).write_text(text)
    out = tmp_path / "set.binpb"
    command = ["protoc", f"-I{tmp_path}", f"-I{PROTO_INCLUDE}", f"--descriptor_set_out={out}", *flags, messages.FILE]
    with (tmp_path / "stderr").open("w+") as written, moved_stderr(written):
        code = _protoc_compiler.run_main([argument.encode() for argument in command])
        written.seek(0)
        assert (code, written.read()) == (0, "")
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    for message in file.message_type:
        for nested in (message, *message.nested_type):
            for field in nested.field:
                field.ClearField("json_name")
    return file


def in_order(file):
    """Normalises the order of enums and messages, which a text keeps separately."""
    for message in file.message_type:
        # protoc lists the oneofs of `optional` fields last.
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
    """Text and descriptors agree for signatures and schemas with fields of all types."""
    maker = file_of(**{name: CONTRACTS[name]})
    expected = in_order(descriptor_pb2.FileDescriptorProto.FromString(maker.file.SerializeToString()))
    assert in_order(compiled(text_of(maker), tmp_path)) == expected


@pytest.mark.parametrize("name", CONTRACTS)
def test_comments_have_protocs_locations(name, tmp_path):
    """Comments and spans in source_code_info equal those that protoc reads from the text."""
    described = comments.described((maker := file_of(**{name: CONTRACTS[name]})).file, maker.comments)
    compiled_file = compiled(proto_text.text_of(described), tmp_path, "--include_source_info")
    # protoc has more locations, such as those of names and types.
    expected = {tuple(location.path): location for location in compiled_file.source_code_info.location}
    assert len(described.source_code_info.location) > 10
    for location in described.source_code_info.location:
        assert location == expected.pop(tuple(location.path))
    assert not [location for location in expected.values() if location.leading_comments or location.trailing_comments]


def test_unsupported_files_are_refused(tmp_path):
    """A file with nested messages, or in proto2, is refused instead of being written incompletely."""
    nested = descriptor_pb2.FileDescriptorProto(name="x.proto", syntax="proto3")
    nested.message_type.add(name="a").nested_type.add(name="b")
    for file in (nested, descriptor_pb2.FileDescriptorProto(name="x.proto")):
        with pytest.raises(ValueError, match=r"x\.proto is not in proto3, or has"):
            proto_text.text_of(file)


def test_names_are_unique_across_models(tmp_path):
    """Names are unique in a file with all models."""
    maker = file_of(**CONTRACTS)
    assert len(compiled(text_of(maker), tmp_path).message_type) > 50


def test_invalid_names_become_identifiers():
    """Invalid names become unique identifiers, and the comment has the original name."""
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
def test_unprintable_characters_in_descriptions_are_replaced(description, tmp_path):
    """Control characters and lone surrogates are replaced, and do not break a comment; letters are kept."""
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
def test_columns_named_like_a_map_entry_type(turned, before, tmp_path):
    """A column does not get the name of a map's entry type (PartEntry for part), in any order and with any lock."""
    columns = list(FIELDS.values())[:: -1 if turned else 1]
    old = {
        "lock": columns[::2],
        "lock of others": [Field("AEntry", MAP), Field("PartEntry", TEXT)],
        "lock of no maps": [Field(column.name, TEXT) for column in columns],
    }
    locked = None
    if before == "lock of both":
        # A lock from before entry types were checked.
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


def test_comments_describe_fields(tmp_path):
    """Descriptions, defaults and shapes are in the comments of fields."""
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
