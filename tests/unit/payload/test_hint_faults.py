"""Pydantic's errors are described in JSON's terms, without keys or values that the caller chose."""

from typing import Any

import pydantic
import pytest
from mlflow.types import DataType
from mlflow.types.schema import Array, Map, Object, Property

from mlflow_grpc.payload.mlflow_json.refusals.hint_faults import pydantic_faults


class Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    role: str
    content: str


class Request(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    messages: list[Message]
    options: dict[str, int] = {}
    choice: int | list[int] | None = None


MESSAGE = {"role": "user", "content": "hush"}
TYPE = Object(
    [
        Property("messages", Array(Object([Property("role", DataType.string), Property("content", DataType.string)]))),
        Property("options", Map(DataType.long), required=False),
    ]
)


def faults_of(value: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(pydantic.ValidationError) as caught:
        Request.model_validate(value, strict=True)
    faults = [(field, str(fault)) for field, fault in pydantic_faults(caught.value, value, TYPE, "the payload")]
    assert "hush" not in str(faults)
    return faults


def test_missing_fields_are_named():
    """A missing field is named with its expected type, and so are several of one object."""
    assert faults_of({"messages": [{}]}) == [
        ("messages", 'the payload.messages[0] lacks role; it must be string: text in quotes, such as "text"'),
        ("messages", 'the payload.messages[0] lacks content; it must be string: text in quotes, such as "text"'),
    ]
    ((field, sentence),) = faults_of({})
    assert (field, sentence.partition(";")[0]) == ("messages", "the payload lacks messages")


def test_unknown_keys_are_described_by_position():
    """Unknown keys are described by their positions, because the caller chose the names."""
    assert faults_of({"messages": [MESSAGE], "hush": 1}) == [
        ("", "the payload has a key that the model does not take (2nd key); leave it out"),
    ]
    assert faults_of({"messages": [{"hush": 1, **MESSAGE}]}) == [
        ("messages", "the payload.messages[0] has a key that the model does not take (1st key); leave it out"),
    ]
    ((field, sentence),) = faults_of({"messages": [MESSAGE], "options": {"hush": "hush"}})
    assert (field, sentence.partition(";")[0]) == ("options", "the payload.options.<1st key> is a string")


def test_a_union_has_one_fault():
    """A union has one fault, although pydantic has an error for each of its members."""
    ((field, sentence),) = faults_of({"messages": [MESSAGE], "choice": "hush"})
    assert (field, sentence) == (
        "",
        "the payload.<2nd key> is a string; must be a whole number or an array",
    )
