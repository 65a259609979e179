"""For every payload: where MLflow answers 200 our answer is its text to the letter, where it refuses or
crashes ours is INVALID_ARGUMENT. The models of the zoo never fail, so nothing else can happen.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import zoo
from tests.support.payloads import CONTENT_TYPES, CSV, SCALARS, TEXTS, payloads


def expected(oracle, text, content_type="application/json"):
    status, body = oracle(text, content_type)
    return ("OK", body) if status == 200 else ("INVALID_ARGUMENT", None)


def judged(outcome):
    return outcome if outcome[0] == "OK" else (outcome[0], None)


def cells(names):
    """Each odd scalar in each column, in each format."""
    for value in SCALARS:
        for name in names:
            row = {other: value if other == name else 1 for other in names}
            yield json.dumps({"dataframe_split": {"columns": names, "data": [list(row.values())]}})
            yield json.dumps({"dataframe_records": [row, row]})
            yield json.dumps({"inputs": {key: [item] for key, item in row.items()}})
            yield json.dumps({"instances": [row]})


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_table_of_payloads(pair, name):
    """Malformed, odd and plain payloads of every format get MLflow's answer on every kind of model."""
    oracle, call, _ = pair(name)
    for text in TEXTS:
        assert judged(call.outcome(text)) == expected(oracle, text), text[:300]


@pytest.mark.parametrize("name", zoo.NAMES)
def test_csv(pair, name):
    """CSV gets MLflow's answer on every kind of model."""
    oracle, call, _ = pair(name)
    for text in CSV:
        outcome = call.outcome(text, mlflow_content_type="text/csv")
        assert judged(outcome) == expected(oracle, text, "text/csv"), text


@pytest.mark.parametrize("name", ["every_column", "optional", "one_boolean", "structures", "numbers", "tensors"])
def test_every_scalar_in_every_column(pair, name):
    """Any JSON value in a column of any type, in any format, is cast, passed or refused as MLflow does."""
    oracle, call, model = pair(name)
    for text in cells(model.metadata.get_input_schema().input_names()):
        assert judged(call.outcome(text)) == expected(oracle, text), text


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_content_types(pair, content_type):
    """What MLflow answers 415 to is INVALID_ARGUMENT, what it takes is taken."""
    oracle, call, _ = pair("numbers")
    for text in ('{"dataframe_records": [{"a": 1, "b": 2}]}', "a,b\n1,2\n"):
        outcome = call.outcome(text, mlflow_content_type=content_type)
        assert judged(outcome) == expected(oracle, text, content_type.strip(" "))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_generated_payloads(pair, name):
    """Whatever hypothesis makes of a model's signature gets MLflow's answer."""
    oracle, call, model = pair(name)

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        text = data.draw(payloads(model.metadata.get_input_schema()))
        assert judged(call.outcome(text)) == expected(oracle, text)

    check()


def test_thirty_two_at_a_time(pair):
    """Calls in flight together get the answers that they get alone."""
    oracle, call, model = pair("every_column")
    texts = [*TEXTS, *cells(model.metadata.get_input_schema().input_names())][:1500]
    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(call.outcome, texts))
    for text, outcome in zip(texts, outcomes, strict=True):
        assert judged(outcome) == expected(oracle, text), text[:300]


def test_refusals_repeat_nothing_of_the_payload(pair):
    """Neither message nor trailers hold a value or a name that the caller made up."""
    import grpc

    secret = "hunter2secret"
    for name in zoo.NAMES:
        _, call, model = pair(name)
        schema = model.metadata.get_input_schema()
        columns = [spec.name or "a" for spec in schema.inputs] if schema else ["a"]
        for text in (
            secret,
            json.dumps({secret: 1}),
            json.dumps({"inputs": {column: secret for column in columns} | {secret: secret}}),
            json.dumps({"inputs": [{column: {secret: [secret]}} for column in columns]}),
            json.dumps({"dataframe_split": {"columns": [*columns, secret], "data": [[secret] * (len(columns) + 1)]}}),
            json.dumps({"dataframe_records": [{column: secret for column in columns}], "params": {"top_k": secret}}),
            json.dumps({"dataframe_split": {"columns": [secret], "data": secret, secret: 1}}),
            json.dumps({"messages": secret, "top_k": secret, secret: secret}),
        ):
            try:
                call(text)
            except grpc.RpcError as error:
                assert secret not in error.details()
                for key, value in error.trailing_metadata():
                    assert secret.encode() not in (value if isinstance(value, bytes) else value.encode()), key
