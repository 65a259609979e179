"""Unions and nulls in typed RPCs, compared with JSON calls to the same server."""

import json
from typing import Any

import pytest

from mlflow_grpc.config import ModelConfig
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, batch_of, plain, rows_of

MODELS = "tests.support.particular_models."


@pytest.fixture(scope="module")
def served():
    """Callers in JSON and in typed messages, for models that return their input."""
    models = [ModelConfig(class_path=f"{MODELS}{name}", endpoint=True) for name in ("Unions", "Nulls")]
    with serving_models([(model, None) for model in models]) as running, Caller(running.address) as call:
        yield call, TypedCaller(call.channel)


# A record as JSON, and as protobuf's JSON.
FIRST = (
    {"pet": {"name": "a", "kind": "cat"}, "day": "2020-02-29", "moment": "2020-02-29", "several": ["1"],
     "labels": [1, 2], "part": {"x": 1}},
    {"pet": {"Cat_value": {"name": "a", "kind": "UNIONS_KIND_CAT"}}, "day": {"date_value": "2020-02-29"},
     "moment": {"date_value": "2020-02-29"}, "several": {"list_value": {"values": ["1"]}},
     "labels": {"list_value": {"values": [1, 2]}}, "part": {"Narrow_value": {"x": 1}}},
)  # fmt: skip
LAST = (
    {"pet": {"name": "a", "kind": "dog"}, "day": "hello", "moment": "2020-02-29T10:00:00Z", "several": [1, 2],
     "labels": "many", "part": {"x": 1, "note": "new"}},
    {"pet": {"Dog_value": {"name": "a", "kind": "UNIONS_KIND_2_DOG"}}, "day": {"string_value": "hello"},
     "moment": {"datetime_value": "2020-02-29T10:00:00Z"}, "several": {"list_value_2": {"values": [1, 2]}},
     "labels": {"string_value": "many"}, "part": {"Wide_value": {"x": 1, "note": "new"}}},
)  # fmt: skip


@pytest.mark.parametrize(("record", "fields"), [FIRST, LAST])
def test_unions_keep_the_type_that_was_sent(served, record, fields):
    """A value comes back in the type of the union that it was sent in, as in JSON, alone and in rows."""
    call, typed = served
    assert json.loads(call(json.dumps(record), mlflow_model="unions")) == record
    sent = typed.input("unions_predict", fields)
    answer = typed("unions_predict", sent)
    assert plain(answer) == plain(sent)
    rows = typed("unions_predict_batch", batch_of(typed, "unions", [sent, sent]))
    assert rows_of(rows, type(answer)) == [answer, answer]


EMPTY = {"number": None, "items": None, "inner": {"x": None}, "kind": None, "ratio": 0.5}
FULL = {"number": 0, "items": [], "inner": {"x": 0}, "kind": "a", "ratio": 0.5}
NO_FIELDS: dict[str, Any] = {"inner": {}}
ALL_FIELDS = {"number": 0, "items": {}, "inner": {"x": 0}, "kind": "NULLS_KIND_A"}


@pytest.mark.parametrize(("record", "fields"), [(EMPTY, NO_FIELDS), (FULL, ALL_FIELDS)])
def test_absent_nullable_fields_are_null(served, record, fields):
    """Leaving out a required field that may be null means null, which JSON calls send explicitly."""
    call, typed = served
    assert json.loads(call(json.dumps(record), mlflow_model="nulls")) == record
    answer = typed("nulls_predict", fields)
    assert answer == type(answer).FromString(typed.input("nulls_predict", {**fields, "ratio": 0.5}).SerializeToString())
    assert answer.HasField("number") is (record["number"] is not None)


def test_nulls_in_rows(served):
    """Nulls may be in some rows, in all rows, or in columns that are left out."""
    _, typed = served
    empty, full = (typed.input("nulls_predict", fields) for fields in (NO_FIELDS, ALL_FIELDS))
    for records in ([empty, full], [full, empty], [empty, empty]):
        answers = typed("nulls_predict_batch", batch_of(typed, "nulls", records))
        assert rows_of(answers, type(typed("nulls_predict", empty))) == [
            typed("nulls_predict", record) for record in records
        ]
    answers = typed("nulls_predict_batch", {"inner": [{}, {}]})
    assert list(answers.number_nulls) == list(answers.items_nulls) == list(answers.kind_nulls) == [0, 1]
