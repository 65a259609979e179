"""Bytes between records and JSON; the oracle is pydantic, which reads the texts and writes them."""

import json
from typing import Any

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from mlflow_grpc.hosting.mlmodel.json_values import InDetail, Place, encoded, in_full


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
    """All bytes in a value, from the first to the last."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, BaseModel | InBase64):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        return [each for part in value for each in found_in(part)]
    return [value] if isinstance(value, bytes) else []


def test_the_model_gets_the_bytes():
    """Whatever a class's configuration, a type or a definition that holds itself makes of them in JSON."""
    text = json.dumps(encoded(RECORD, Place(Everywhere.model_json_schema(schema_generator=InDetail)), in_json=True))
    assert found_in(Everywhere.model_validate_json(text)) == found_in(RECORD)


def test_bytes_that_json_has_no_text_for():
    """A field of plain UTF-8 cannot say them; those that are encoded can."""
    place = Place(Everywhere.model_json_schema(schema_generator=InDetail))
    assert encoded({"map": {"k": b"\xff"}}, place, in_json=True) == {"map": {"k": "/w=="}}
    with pytest.raises(UnicodeDecodeError):
        encoded({"plain": b"\xff"}, place, in_json=True)
    python = Everywhere.model_validate(encoded({**RECORD, "plain": b"\xff"}, place, in_json=False))
    assert found_in(python) == [b"\xff", *found_in(RECORD)[1:]]


def test_the_answer_has_the_bytes():
    """Out of what pydantic writes."""
    place = Place(Everywhere.model_json_schema(mode="serialization"))
    text = json.dumps(encoded(RECORD, Place(Everywhere.model_json_schema(schema_generator=InDetail)), in_json=True))
    output = Everywhere.model_validate_json(text)
    told = in_full(output.model_dump(mode="json"), output.model_dump(), place)
    assert found_in(told) == found_in(RECORD)
    assert told["pair"][2] == 1
