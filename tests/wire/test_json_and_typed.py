"""Typed RPCs and JSON agree about a record: bytes, serialisers for JSON only, and outputs that are not records."""

import base64
import json
from typing import Any

import pytest

from mlflow_grpc.config import ModelConfig
from tests.support import serialized_models as models
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, batch_of, plain

CLASSES = (
    "Rounded", "InBase64", "Anything", "Old", "OldEncoders", "Bytes", "BytesEcho", "Strict", "RootList", "OldRootList",
    "RootScalar", "RootMap", "Raises", "Naive", "Zones",
)  # fmt: skip


@pytest.fixture(scope="module")
def served():
    """One server with all of these models."""
    configs = [ModelConfig(class_path=f"tests.support.serialized_models.{name}", endpoint=True) for name in CLASSES]
    with serving_models([(model_config, None) for model_config in configs]) as running, Caller(running.address) as call:
        yield call, TypedCaller(call.channel)


def by_json(served: Any, name: str, record: Any) -> Any:
    return json.loads(served[0](json.dumps(record), mlflow_model=name))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("Rounded", {"value": 1.26}),
        ("InBase64", {"data": "aGVsbG8="}),
        ("Anything", {"value": 1.0}),
        ("RootList", {"value": 2.5}),
        ("OldRootList", {"value": 2.5}),
        ("RootScalar", {"value": 2.5}),
    ],
)
def test_a_typed_answer_is_the_json_answer(served, name, record):
    """Serialisers for JSON only apply to messages too, and an output that is not a record is called prediction."""
    expected = by_json(served, name, record)
    answer = plain(served[1](f"{name}_predict", record))
    if "day" in answer:
        assert answer.pop("day") == {"seconds": 1582934400}
        assert expected.pop("day") == "2020-02-29T00:00:00"
    assert (answer["prediction"] if set(answer) == {"prediction"} else answer) == expected


def test_pydantic_1_encoders_apply(served):
    """Decimals are numbers and timedeltas follow the class's encoder; bytes and datetimes are kept."""
    expected = by_json(served, "Old", {})
    assert (expected["decimal"], expected["color"]) == (1.5, "red")
    answer = plain(served[1]("Old_predict", {}))
    assert answer["decimal"] == expected["decimal"]
    assert (answer["data"], answer["moment"]) == (b"x", {"seconds": 1582977600})
    assert plain(served[1]("OldEncoders_predict", {"span": 5})) == by_json(served, "OldEncoders", {"span": 5})


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("data", [b"abcd", b"", "\u00e9".encode(), b"\x00\xff"])
def test_the_model_gets_the_bytes(served, data):
    """The model gets the bytes, whether its schema has them in JSON as UTF-8 or base64, and whether they are UTF-8 or
    not."""
    fields = {
        "plain": encoded(data), "encoded": encoded(data), "many": [encoded(data)], "inner": {"data": encoded(data)},
        "either": {"binary_value": encoded(data)},
    }  # fmt: skip
    decoded = plain(served[1]("Bytes_predict", fields))
    assert decoded == {"value": [data.hex()] * 5}
    answer = served[1]("BytesEcho_predict", fields)
    assert (answer.plain, answer.encoded, answer.many[:], answer.inner.data) == (data, data, [data], data)
    assert answer.either.binary_value == data


def test_bytes_in_a_strict_model(served):
    """A record with bytes is validated in JSON mode, where strict schemas take texts for dates."""
    answer = plain(served[1]("Strict_predict", {"data": encoded(b"x"), "day": "2020-02-29"}))
    assert answer == {"data": b"x", "day": "2020-02-29"}
    assert by_json(served, "Strict", {"data": "x", "day": "2020-02-29"}) == {"data": "x", "day": "2020-02-29"}


def test_naive_timestamps(served):
    """A message has times in UTC; the schema gets them without a zone."""
    moments = ["2020-02-29T12:00:00Z", "2020-02-29T12:00:01Z"]
    decoded = plain(served[1]("Naive_predict", {"moment": moments[0], "moments": moments}))
    assert decoded == {"moment": {"seconds": 1582977600}, "moments": [{"seconds": 1582977600}, {"seconds": 1582977601}]}
    status, details = served[0].outcome(json.dumps({"moment": moments[0]}), mlflow_model="Naive")
    assert (status, "timezone" in str(details)) == ("INVALID_ARGUMENT", True)


ZONES = {
    "any": "2020-02-29T12:00:00Z", "naive": "2020-02-29T12:00:00", "aware": "2020-02-29T12:00:00Z",
    "either": "2020-02-29T12:00:00Z", "by_name": {"k": "2020-02-29T12:00:00"}, "text": "2020-02-29T12:00:00Z",
    "inner": {"moment": "2020-02-29T12:00:00", "moments": ["2020-02-29T12:00:00"]},
}  # fmt: skip
"""Input of the model: times without a zone where none is allowed."""


def test_aware_and_naive_timestamps_in_one_schema(served):
    """Each field gets the form that it takes, alone and in rows, as in JSON."""
    assert by_json(served, "Zones", ZONES) == ZONES
    moment = "2020-02-29T12:00:00Z"
    fields = {
        **dict.fromkeys(("any", "naive", "aware", "either", "text"), moment), "by_name": {"k": moment},
        "inner": {"moment": moment, "moments": [moment]},
    }  # fmt: skip
    caller = served[1]
    message = caller.input("Zones_predict", fields)
    expected = plain(message)
    assert plain(caller("Zones_predict", message)) == expected
    together = caller("Zones_predict_batch", batch_of(caller, "Zones", [message, message]))
    assert [plain(moment) for moment in together.naive] == [expected["naive"]] * 2


def test_closed_schemas_refuse_unknown_fields(served):
    """An unknown field number is refused at the top like an unknown key in JSON, with its path; other schemas ignore
    it."""
    caller = served[1]
    status, details = served[0].outcome(json.dumps({**ZONES, "more": 1}), mlflow_model="Zones")
    assert (status, "more" in str(details)) == ("INVALID_ARGUMENT", True)
    zones_record = caller.input("Zones_predict", {"any": "2020-02-29T12:00:00Z"})
    rows = caller.input("Zones_predict_batch", {"any": ["2020-02-29T12:00:00Z"]})
    for method, message in (("Zones_predict", zones_record), ("Zones_predict_batch", rows)):
        message.MergeFromString(b"\xf8\x06\x01")  # Field 111.
        status, details = caller.outcome(method, message)
        assert status == "INVALID_ARGUMENT"
        assert details.startswith("The record has fields that the model does not have, of the numbers 111.")
    open_one = caller.input("Naive_predict", {"moment": "2020-02-29T12:00:00Z"})
    open_one.MergeFromString(b"\xf8\x06\x01")
    assert caller.outcome("Naive_predict", open_one)[0] == "OK"


def test_rows_and_streams_of_bare_outputs(served):
    """Outputs that are not records are a column of predictions in rows, and one prediction per message in streams."""
    caller = served[1]
    records = [caller.input("RootScalar_predict", {"value": value}) for value in (1.5, 2.5)]
    batch = caller("RootScalar_predict_batch", batch_of(caller, "RootScalar", records))
    assert batch.prediction[:] == [1.5, 2.5]
    lists = caller("RootList_predict_batch", batch_of(caller, "RootList", records))
    assert [row.values[:] for row in lists.prediction] == [[1.5, 1.0], [2.5, 1.0]]
    many = caller.many("RootScalar_predict_many", records)
    assert [answer.prediction for answer in many] == [1.5, 2.5]


def test_inputs_that_are_not_records_have_no_typed_rpc(served):
    """A model whose input is not a record has no typed RPC and is called as JSON."""
    assert by_json(served, "RootMap", {"a": 1.0}) == {"a": 1.0}
    assert not [method.name for method in served[1].service.methods if method.name.startswith("RootMap")]


def test_exceptions_of_validators_are_internal(served):
    """An exception of a validator is INTERNAL with its type and without its text, because the model's owner has to act."""
    call, typed = served
    assert by_json(served, "Raises", {"code": "a"}) == {"code": "A"}
    for outcome in (
        call.outcome('{"code": "secret"}', mlflow_model="Raises"),
        typed.outcome("Raises_predict", {"code": "secret"}),
    ):
        assert outcome[0] == "INTERNAL"
        assert "raised an exception" in str(outcome[1])
        assert "secret" not in str(outcome[1])
    assert issubclass(models.Raises, models.Echo)
