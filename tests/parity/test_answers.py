"""For every payload that MLflow answers with 200, our answer has the same text. For every payload that MLflow refuses
or crashes on, ours is INVALID_ARGUMENT. The models of the zoo never fail, so there is no third case."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import zoo
from tests.support.depth import examples, sample
from tests.support.payloads import CONTENT_TYPES, CSV, SCALARS, TEXTS, payloads


def expected(oracle, text, content_type="application/json"):
    status, body = oracle(text, content_type)
    return ("OK", body) if status == 200 else ("INVALID_ARGUMENT", None)


def judged(outcome):
    return outcome if outcome[0] == "OK" else (outcome[0], None)


FORMATS = ["dataframe_split", "dataframe_records", "inputs", "instances"]

PLAIN_BY_TYPE = {"string": "s", "binary": "AQID", "datetime": "2021-01-01", "boolean": True, "integer": 1, "long": 2}
PLAIN_BY_NAME = {"numbers": [1.5, 2.5], "person": {"name": "n"}, "counts": {"k": 1}, "x": [1.5, 2.5], "mask": 1}


def cells(schema, formats=FORMATS):
    """Yields every odd scalar in each column, beside plain values, in each format."""
    names = schema.input_names()
    plain = {
        spec.name: PLAIN_BY_NAME.get(spec.name, PLAIN_BY_TYPE.get(getattr(spec.type, "name", ""), 1.5))
        for spec in schema.inputs
        if spec.required
    }
    for value in SCALARS:
        for name in names:
            row = {**plain, name: value}
            documents = {
                "dataframe_split": {"columns": list(row), "data": [list(row.values())]},
                "dataframe_records": [row, {**row, **plain}],
                "inputs": {key: [item] for key, item in row.items()},
                "instances": [row],
            }
            for key in formats:
                yield json.dumps({key: documents[key]})


@pytest.mark.parametrize("name", zoo.NAMES)
def test_odd_payloads(pair, name):
    """Malformed, odd and plain payloads of every format get MLflow's answer from every model."""
    oracle, call, _ = pair(name)
    for text in sample(TEXTS, name):
        assert judged(call.outcome(text)) == expected(oracle, text), text[:300]


@pytest.mark.parametrize("name", zoo.NAMES)
def test_csv(pair, name):
    """CSV gets MLflow's answer from every model."""
    oracle, call, _ = pair(name)
    for text in sample(CSV, name):
        outcome = call.outcome(text, mlflow_content_type="text/csv")
        assert judged(outcome) == expected(oracle, text, "text/csv"), text


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("every_column", ["dataframe_split", "instances"]),
        ("optional", ["dataframe_records", "inputs"]),
        ("one_boolean", FORMATS),
        ("structures", ["dataframe_split", "inputs"]),
        ("tensors", FORMATS),
    ],
)
def test_every_scalar_in_every_column(pair, name, formats):
    """Any JSON value in a column of any type and any format is cast, passed or refused as in MLflow."""
    oracle, call, model = pair(name)
    seen = set()
    for text in sample(cells(model.metadata.get_input_schema(), formats)):
        outcome = judged(call.outcome(text))
        assert outcome == expected(oracle, text), text
        seen.add(outcome[0])
    assert seen == {"OK", "INVALID_ARGUMENT"}


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_content_types(pair, content_type):
    """A content type that MLflow answers with 415 is INVALID_ARGUMENT; others are accepted."""
    oracle, call, _ = pair("numbers")
    for text in ('{"dataframe_records": [{"a": 1, "b": 2}]}', "a,b\n1,2\n"):
        outcome = call.outcome(text, mlflow_content_type=content_type)
        assert judged(outcome) == expected(oracle, text, content_type.strip(" "))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_generated_payloads(pair, name):
    """Payloads that hypothesis generates from a signature get MLflow's answer."""
    oracle, call, model = pair(name)

    @settings(max_examples=examples(80), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        text = data.draw(payloads(model.metadata.get_input_schema()))
        assert judged(call.outcome(text)) == expected(oracle, text)

    check()


def test_thirty_two_concurrent_calls(pair):
    """Concurrent calls get the same answers as single calls."""
    oracle, call, model = pair("every_column")
    texts = [text for text in (*TEXTS, *cells(model.metadata.get_input_schema())) if len(text) < 10_000]
    texts = sample(texts[:600])
    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(call.outcome, texts))
    for text, outcome in zip(texts, outcomes, strict=True):
        assert judged(outcome) == expected(oracle, text), text[:300]


def test_refusals_repeat_no_value_of_the_payload(pair):
    """Neither message nor trailers contain a value. Names that the caller chose are allowed, because they show
    misspellings."""
    secret, made_up = "hunter2secret", "made_up"
    for name in zoo.NAMES:
        _, call, model = pair(name)
        schema = model.metadata.get_input_schema()
        columns = [spec.name or "a" for spec in schema.inputs] if schema else ["a"]
        for text in (
            secret,
            json.dumps({made_up: 1}),
            json.dumps({"inputs": dict.fromkeys(columns, secret) | {made_up: secret}}),
            json.dumps({"inputs": [{column: {made_up: [secret]}} for column in columns]}),
            json.dumps({"dataframe_split": {"columns": [*columns, made_up], "data": [[secret] * (len(columns) + 1)]}}),
            json.dumps({"dataframe_records": [dict.fromkeys(columns, secret)], "params": {"top_k": secret}}),
            json.dumps({"dataframe_split": {"columns": [made_up], "data": secret, made_up: 1}}),
            json.dumps({"messages": secret, "top_k": secret, made_up: secret}),
        ):
            refused: Any = None
            try:
                call(text)
            except grpc.RpcError as error:
                refused = error
            refusal_texts = [refused.details(), *refused.trailing_metadata()] if refused else []
            assert secret not in repr(refusal_texts)
