"""Warnings about columns that a model ignores: once for each name."""

import json
import re
import warnings

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema
from mlflow_grpc_client import IgnoredColumns, InvalidInput

from mlflow_grpc.config import ModelConfig
from tests.support import zoo
from tests.support.commands import predict_command
from tests.support.servers import serving_models

ZOO = ("numbers", "optional", "every_column", "unnamed")


class Raising(PythonModel):
    def predict(self, context, model_input, params=None):
        raise ValueError("no prediction")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    signature = ModelSignature(Schema([ColSpec("long", "a")]))
    mlflow.pyfunc.save_model(
        folder / "raising", python_model=Raising(), signature=signature, pip_requirements=["mlflow"]
    )
    for name in ZOO:
        zoo.save(f"rows_{name}", folder / name)
    models = [ModelConfig(uri=str(folder / name), name=name, endpoint=True) for name in (*ZOO, "raising")]
    with serving_models([(model, None) for model in models]) as running:
        yield running.address


@pytest.fixture
def client(make_client, address):
    return make_client(address)


def payload(**more):
    return {"dataframe_records": [{"a": 1, "b": 2.5, **more}]}


def warned_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(str(warning.message), warning.filename) for warning in caught if warning.category is IgnoredColumns]


def test_one_warning_for_each_name(client):
    """A successful call warns at the caller's line; the next one only about new names, separately for each model."""
    (warning_text,) = warned_of(lambda: client.predict(payload(c=1, größe=2), model="numbers"))
    assert warning_text[0] == "the model numbers does not have and ignores 'c', 'größe'"
    assert warned_of(lambda: client.predict(payload(c=1), model="numbers")) == []
    assert [text for text, _ in warned_of(lambda: client.predict(payload(c=1, d=1), model="numbers"))] == [
        "the model numbers does not have and ignores 'd'"
    ]
    payload_of_optional = {"dataframe_records": [{"need": 1.5, "c": 1}]}
    assert len(warned_of(lambda: client.predict(payload_of_optional, model="optional"))) == 1
    assert warned_of(lambda: client.predict(payload(), model="numbers")) == []


def test_warnings_have_the_callers_line(address):
    """The warning has the line that made the call, not a line of the client."""
    from mlflow_grpc_client import Client

    with Client(address) as client:
        ((_, where),) = warned_of(lambda: client.predict(payload(c=1), model="numbers"))
    assert where == __file__


def test_warnings_of_streams(client):
    """A stream warns at its end about ignored columns of all payloads."""
    payloads = [payload(c=1), payload(d=1), payload(c=1)]
    (warning_text,) = warned_of(lambda: list(client.stream(payloads, model="numbers")))
    assert sorted(re.findall("'(.)'", warning_text[0])) == ["c", "d"]


def test_warnings_of_failed_calls(client):
    """Failed calls warn too, because ignored columns may be the reason."""

    def call():
        with pytest.raises(InvalidInput, match='Seen in its place: "bb"'):
            client.predict({"dataframe_records": [{"a": 1, "bb": 2.5}]}, model="numbers")

    (warning_text,) = warned_of(call)
    assert warning_text[0].endswith("ignores 'bb'")


def test_the_command_prints_a_line(address):
    """The line has no location in the client's code, and the answer is unchanged."""
    text = '{"dataframe_records": [{"a": 1, "b": 2.5, "c": 1}]}'
    code, _, error = predict_command("-a", address, "-m", "numbers", text)
    assert (code, error) == (0, "warning: the model numbers does not have and ignores 'c'\n")


def test_a_refused_call_is_one_line(address):
    """The command prints only the error of a call that is refused, because it says what to correct."""
    text = '{"dataframe_records": [{"a": 1, "bb": 2.5}]}'
    code, _, error = predict_command("-a", address, "-m", "numbers", text)
    (line,) = error.splitlines()
    assert code == 3
    assert line.startswith("error: INVALID_ARGUMENT")
    assert 'Seen in its place: "bb"' in line


def test_the_command_warns_if_the_model_raises(address):
    """The ignored columns may be the reason."""
    text = json.dumps({"dataframe_records": [{"a": 1, "c": 1}]})
    code, _, error = predict_command("-a", address, "-m", "raising", text)
    warning_text, error_text = error.splitlines()
    assert code == 1
    assert warning_text == "warning: the model raising does not have and ignores 'c'"
    assert error_text.startswith("error: INTERNAL")


def test_predict_text_accepts_bytes(client):
    """UTF-8 bytes of a file are accepted, and others are refused by the client."""
    assert client.predict_text(b"a,b\n1,2.5\n", content_type="text/csv", model="numbers") == client.predict_text(
        "a,b\n1,2.5\n", content_type="text/csv", model="numbers"
    )
    with pytest.raises(ValueError, match=r"not UTF-8 \(at byte 2\)"):
        client.predict_text(b"a,\xff", model="numbers")
    with pytest.raises(TypeError, match="give a str or bytes"):
        client.predict_text(5, model="numbers")


FRAME = pd.DataFrame(
    {
        "need": [1.5, 2.5, 3.5],
        "may_string": ["a", np.nan, None],
        "may_long": [1, np.nan, 3],
        "may_double": [np.nan, 2.0, 3.0],
        "may_datetime": pd.to_datetime(pd.Series(["2020-01-01", None, "2020-01-03"])),
    }
)


def test_records_with_nan(client):
    """NaN in a field that cannot hold it is a missing value, like None; in a float field it is a number."""
    model = client.model("optional")
    records = FRAME.to_dict("records")
    without = [
        {"need": 1.5, "may_string": "a", "may_long": 1, "may_double": np.nan, "may_datetime": FRAME.may_datetime[0]},
        {"need": 2.5, "may_double": 2.0},
        {"need": 3.5, "may_long": 3, "may_double": 3.0, "may_datetime": FRAME.may_datetime[2]},
    ]
    expected = [str(answer) for answer in model.predict_many(without)]
    assert [str(answer) for answer in model.predict_many(records)] == expected
    assert [str(answer) for answer in model.predict_many(records, on_error="return")] == expected
    assert [str(model.predict(record)) for record in records] == expected
    # The message that MLflow has for columns.
    with pytest.raises(InvalidInput, match="may_long: must be long, and is null"):
        model.predict(records)
    lists = [
        [{name: value for name, value in row.items() if name != "may_long"} for row in rows]
        for rows in (records, without)
    ]
    assert str(model.predict(lists[0])) == str(model.predict(lists[1]))


def test_rows_of_a_dataframe(client):
    """predict_many takes the rows of a DataFrame one by one, by column labels or without any."""
    model = client.model("optional")
    expected = [str(answer) for answer in model.predict_many(FRAME.to_dict("records"))]
    assert [str(answer) for answer in model.predict_many(FRAME)] == expected
    nameless = client.model("unnamed")
    rows = pd.DataFrame([[1, 2.5], [2, 3.5]])
    assert list(nameless.predict_many(rows)) == [
        nameless.predict({"column_0": 1, "column_1": 2.5}),
        nameless.predict({"column_0": 2, "column_1": 3.5}),
    ]
    with pytest.raises(TypeError, match="citty: there is no such field"):
        list(model.predict_many(FRAME.assign(citty=1)))


def test_nan_in_a_required_text(client):
    """NaN in a required text has the same effect in a single record as in rows."""
    record = {
        "boolean": True, "integer": 1, "long": 1, "float": 1.5, "double": 1.5, "string": np.nan, "binary": b"x",
        "datetime": pd.Timestamp("2020-01-01"),
    }  # fmt: skip
    model = client.model("every_column")
    (alone,) = model.predict_many([record], on_error="return")
    (none,) = model.predict_many([{**record, "string": None}], on_error="return")
    assert str(alone) == str(none)
