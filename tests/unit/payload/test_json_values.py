"""Bytes between records and JSON, compared with pydantic, which reads and writes the texts."""

import json
from typing import Any

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from mlflow_grpc.hosting.mlmodel.json_values import DetailedSchema, SchemaNode, encode_bytes, restore_python_values


class Hex(BaseModel):
    model_config = ConfigDict(val_json_bytes="hex", ser_json_bytes="hex")

    data: bytes


@dataclass(config=ConfigDict(val_json_bytes="base64"))
class InBase64:
    data: bytes


class Node(BaseModel):
    data: Base64Bytes
    next: "Node | None" = None


class Everywhere(BaseModel):
    plain: bytes
    hex: Hex
    base64: InBase64
    pair: tuple[Base64Bytes, bytes, int]
    map: dict[str, Base64Bytes]
    lists: list[list[bytes]]
    node: Node
    maybe: Base64Bytes | None = None


DATA = b"ab\x00"
RECORD: dict[str, Any] = {
    "plain": DATA, "hex": {"data": DATA}, "base64": {"data": DATA}, "pair": [DATA, DATA, 1], "map": {"k": DATA, "l": b""},
    "lists": [[DATA, b""], []], "node": {"data": DATA, "next": {"data": DATA, "next": {"data": DATA}}}, "maybe": DATA,
}  # fmt: skip


def found_in(value: Any) -> list[bytes]:
    """Returns all bytes in a value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, BaseModel | InBase64):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        return [data for item in value for data in found_in(item)]
    return [value] if isinstance(value, bytes) else []


def test_the_model_gets_bytes_of_all_encodings():
    """The model gets the bytes for every encoding: by configuration, by type, and in recursive definitions."""
    text = json.dumps(
        encode_bytes(RECORD, SchemaNode(Everywhere.model_json_schema(schema_generator=DetailedSchema)), as_text=True)
    )
    assert found_in(Everywhere.model_validate_json(text)) == found_in(RECORD)


def test_bytes_without_a_json_text_are_refused():
    """A plain UTF-8 field cannot hold all bytes; base64 can."""
    node = SchemaNode(Everywhere.model_json_schema(schema_generator=DetailedSchema))
    assert encode_bytes({"map": {"k": b"\xff"}}, node, as_text=True) == {"map": {"k": "/w=="}}
    with pytest.raises(UnicodeDecodeError):
        encode_bytes({"plain": b"\xff"}, node, as_text=True)
    python = Everywhere.model_validate(encode_bytes({**RECORD, "plain": b"\xff"}, node, as_text=False))
    assert found_in(python) == [b"\xff", *found_in(RECORD)[1:]]


def test_the_answer_has_the_bytes():
    """The answer has the bytes that pydantic's text stands for."""
    node = SchemaNode(Everywhere.model_json_schema(mode="serialization"))
    text = json.dumps(
        encode_bytes(RECORD, SchemaNode(Everywhere.model_json_schema(schema_generator=DetailedSchema)), as_text=True)
    )
    output = Everywhere.model_validate_json(text)
    restored = restore_python_values(output.model_dump(mode="json"), output.model_dump(), node)
    assert found_in(restored) == found_in(RECORD)
    assert restored["pair"][2] == 1
