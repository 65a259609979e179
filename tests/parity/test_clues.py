"""Errors for calls without rows, names or values, with dates in CSV, or with values that make the model raise."""

import json
from typing import Any, cast

import grpc
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow_grpc_client import Client, ModelError
from sklearn.linear_model import LogisticRegression

from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.parity.conftest import oracle_of
from tests.support import versions, zoo
from tests.support.servers import Caller, serving

NAMES = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
ROW = [5.1, 3.5, 1.4, 0.2]
RECORD = dict(zip(NAMES, ROW, strict=True))


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """MLflow's answer, our server, and one that shows exceptions, for a model that refuses NaN."""
    path = tmp_path_factory.mktemp("flowers") / "flowers"
    table = pd.DataFrame(np.random.default_rng(0).normal(3, 1, (20, 4)), columns=NAMES)
    classes = np.array(["a", "b"] * 10)
    mlflow.sklearn.save_model(
        LogisticRegression().fit(table, classes),
        path,
        serialization_format=versions.SKLEARN_FORMAT,
        signature=infer_signature(table, classes),
        pip_requirements=[],
    )
    model = load_pyfunc(fetching.fetch(str(path)), name="flowers")
    codec = ScoringCodec(model.metadata, model.loader_module)
    with (
        serving(model, codec) as server,
        Caller(server.address) as call,
        serving(model, codec, show_exceptions=True) as open_server,
    ):
        yield oracle_of(path), call, open_server.address


def refused(call: Caller, text: str, **metadata: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(text, **metadata)
    return raised.value.code(), str(raised.value.details())


def split(columns: list[str] | None, *rows: list[Any]) -> str:
    columns_part = {} if columns is None else {"columns": columns}
    return json.dumps({"dataframe_split": {**columns_part, "data": list(rows)}})


@pytest.mark.parametrize(
    ("text", "content_type", "fragments"),
    [
        (split([]), None, ["dataframe_split has no rows"]),
        (split(None), None, ["dataframe_split has no rows"]),
        ('{"dataframe_records": []}', None, ["dataframe_records is empty: send one row at least"]),
        ('{"inputs": []}', None, ["inputs is empty: send one row at least"]),
        ('{"inputs": {}}', None, ["inputs has no rows"]),
        ('{"dataframe_records": [{}]}', None, ["None of the model's columns", "no names of columns"]),
        (split(None, ROW), None, ["None of the model's columns", "no names of columns"]),
        ("5.1,3.5,1.4,0.2\n", "text/csv", ["The CSV has no rows", 'Seen in their place: "5.1", "3.5", "1.4", "0.2"']),
        ("5.1,3.5,1.4,0.2\n6,3,1,2\n", "text/csv", ["first line is taken for their names", '"5.1", "3.5"']),
        ("", "text/csv", ["The CSV has no rows"]),
        (json.dumps(RECORD), None, ["The payload is a record by itself", "dataframe_records"]),
        ("5.1,3.5,1.4,0.2", None, ["The payload is not valid JSON"]),
        (",".join(RECORD) + "\n5.1,3.5,1.4,0.2\n", None, ["not valid JSON", "CSV needs the content type text/csv."]),
        ("", None, ["The payload is empty"]),
        (" \n", None, ["The payload is empty"]),
        ('{"foo": 1}', None, ["it has none of them", 'Its keys are "foo"']),
        (json.dumps([RECORD]), None, ["must be a JSON object, it is an array"]),
        (json.dumps({"dataframe_records": RECORD}), None, ["must be an array of objects, it is an object"]),
    ],
)
def test_payloads_without_rows_or_names(flowers, text, content_type, fragments):
    """The error has the problem, the names in the payload, and a payload that MLflow accepts; MLflow refuses the
    original."""
    ask, call, _ = flowers
    assert ask(text, content_type or "application/json")[0] != 200
    code, details = refused(call, text, **({"mlflow_content_type": content_type} if content_type else {}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [fragment for fragment in fragments if fragment not in details] == [], details
    assert "sepal_length_cm: missing" not in details
    advised, mime = (details.partition("This CSV works: ")[2], "text/csv")
    if not advised:
        advised, mime = details.partition("MLflow takes ")[2], "application/json"
    payload, _ = json.JSONDecoder().raw_decode(advised)
    assert ask(payload if mime == "text/csv" else json.dumps(payload), mime)[0] == 200


def test_columns_without_the_key_of_a_format(flowers):
    """The error says which key the columns of a table need, and MLflow accepts them under it."""
    ask, call, _ = flowers
    columns = {name: [value] for name, value in RECORD.items()}
    assert ask(json.dumps(columns), "application/json")[0] != 200
    _, details = refused(call, json.dumps(columns))
    assert details.startswith("The payload is the columns of a table by themselves: put them under the key inputs.")
    assert ask(json.dumps({"inputs": columns}), "application/json")[0] == 200
    _, details = refused(call, json.dumps({**columns, "sepal_length_cm": ["long"]}))
    assert details.startswith("The payload is a record by itself")


@pytest.mark.parametrize("name", ["tensor", "tensors", "tensor_named"])
@pytest.mark.parametrize(
    ("text", "content_type", "fragment"),
    [
        ('{"dataframe_split": {"columns": [], "data": []}}', None, "dataframe_split is empty: send one row at least"),
        ('{"a": [1.5]}', None, 'Its keys are "a"'),
        ("[[1.5]]", None, "it is an array"),
        ("1.5,2.5", "text/csv", "send inputs as JSON"),
    ],
)
def test_payloads_without_tensors(pair, name, text, content_type, fragment):
    """The error has the problem and a payload of arrays that MLflow accepts; MLflow refuses the original."""
    ask, call, _ = pair(name)
    assert ask(text, content_type or "application/json")[0] != 200
    _, details = refused(call, text, **({"mlflow_content_type": content_type} if content_type else {}))
    assert fragment in details
    payload, _ = json.JSONDecoder().raw_decode(details.partition("MLflow takes ")[2])
    assert ask(json.dumps(payload), "application/json")[0] == 200


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_empty_tensors(pair, key):
    """An empty array has no shape to compare, and the error says that it has no rows."""
    _, call, _ = pair("tensor")
    assert f"{key} is empty: send one row at least. MLflow takes" in refused(call, f'{{"{key}": []}}')[1]


def test_a_misspelt_required_column(flowers):
    """The error has the unknown name beside the missing one."""
    _, call, _ = flowers
    mistyped = {**RECORD, "sepal_lenght_cm": 1.5}
    del mistyped["sepal_length_cm"]
    _, details = refused(call, json.dumps({"dataframe_records": [mistyped]}))
    assert "sepal_length_cm: missing" in details
    assert 'Seen in its place: "sepal_lenght_cm" (did you mean sepal_length_cm?).' in details


def test_missing_values_are_named_as_a_possible_reason(flowers):
    """Columns and rows with missing values are in the text and the details; missing rows are reported too."""
    _, call, _ = flowers
    rows: list[list[Any]] = [[None, 3.5, 1.4, 0.2], ROW, [5.1, 3.5, float("nan"), 0.2], [None, 3.5, 1.4, 0.2]]
    with pytest.raises(grpc.RpcError) as raised:
        call(split(NAMES, *rows))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "sepal_length_cm has no value (null or NaN) in rows 0, 3, counted from 0" in str(raised.value.details())
    status: Any = rpc_status.from_call(cast("grpc.Call", raised.value))
    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    assert [violation.field for violation in bad_request.field_violations] == ["sepal_length_cm", "petal_length_cm"]
    assert "contains NaN" not in str(status)
    assert "The payload has no rows." in refused(call, split(NAMES))[1]


class Raises(PythonModel):
    """Has no signature, and raises."""

    def predict(self, context, model_input, params=None):
        raise ValueError("a secret")


@pytest.fixture(scope="module")
def raising(tmp_path_factory):
    """MLflow's answer and our server for a model without a signature that always raises."""
    path = tmp_path_factory.mktemp("raising") / "raising"
    mlflow.pyfunc.save_model(path, python_model=Raises(), pip_requirements=["mlflow"])
    model = load_pyfunc(fetching.fetch(str(path)), name="raising")
    with serving(model, ScoringCodec(model.metadata, model.loader_module), http_port=0) as server:
        yield oracle_of(path), f"{server.url}/invocations"


@pytest.mark.parametrize(
    ("value", "clue"),
    [
        ("1", ""),
        ('"x"', ""),
        ('""', ""),
        ("null", "the input has no value (null or NaN)"),
        ("{}", ""),
        ('{"a": 1, "b": []}', ""),
        ('{"a": [], "b": [null, 1]}', "b has no value (null or NaN) in row 0"),
        ('{"a": "", "b": null}', "b has no value (null or NaN)"),
        ("[[[1, null]], [[2, 3]]]", "the input has no value (null or NaN) in row 0"),
        ("[]", "The payload has no rows."),
    ],
)
def test_an_input_of_any_form_that_makes_the_model_raise(raising, value, clue):
    """Numbers, strings, null and empty columns get the model's error, as from MLflow, and a clue if there is one."""
    ask, url = raising
    payload = f'{{"inputs": {value}}}'
    status, text = ask(payload, "application/json")
    answer = requests.post(url, payload, headers={"content-type": "application/json"}, timeout=60)
    assert (answer.status_code, answer.json()["error_code"]) == (status, json.loads(text)["error_code"])
    message = answer.json()["message"]
    assert message.startswith("The model raised an exception.")
    assert clue in message
    assert clue or ("may be why" not in message and "no rows" not in message)


def test_shown_exceptions(flowers):
    """--show-exceptions sends type, text and last lines of the traceback, without directories of the server."""
    _, _, address = flowers
    with Client(address) as client, pytest.raises(ModelError) as raised:
        client.predict_text(split(NAMES, [float("nan"), *ROW[1:]]))
    assert "ValueError: Input X contains NaN." in raised.value.message
    first, *places = raised.value.exception.split("\n  at ")
    assert first.startswith("ValueError: Input X contains NaN.")
    assert places[0].startswith("validation.py:")
    assert "/" not in "".join(places)
    assert [violation.field for violation in raised.value.violations] == ["sepal_length_cm"]


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """A model with dates: MLflow's answer, our server, and one that parses dates in CSV."""
    path = tmp_path_factory.mktemp("dated") / "dated"
    specs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.datetime, "when"),
        ColSpec(DataType.double, "x"),
        ColSpec(DataType.string, "city", required=False),
        ColSpec(DataType.datetime, "until", required=False),
    ]
    mlflow.pyfunc.save_model(
        path, python_model=zoo.Echo(), signature=ModelSignature(Schema(specs)), pip_requirements=["mlflow"]
    )
    model = load_pyfunc(fetching.fetch(str(path)), name="dated")
    parsing = ScoringCodec(model.metadata, model.loader_module, csv_dates=True)
    with (
        serving(model, ScoringCodec(model.metadata, model.loader_module)) as server,
        Caller(server.address) as call,
        serving(model, parsing) as parsing_server,
        Caller(parsing_server.address) as parsing_call,
    ):
        yield oracle_of(path), call, parsing_call


CSV = "when,x,until\n2020-02-29T12:00:00,1.5,2021-01-01\n2020-03-01T00:00:00,2.5,\n"


def test_dates_in_csv(dated):
    """MLflow and this server refuse dates in CSV, with advice. --csv-dates parses them as MLflow does in JSON."""
    ask, call, parsing = dated
    status, body = ask(CSV, "text/csv")
    assert (status, "datetime64[ns] is not supported for parsing" in body) == (400, True)
    code, details = refused(call, CSV, mlflow_content_type="text/csv")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "send dataframe_records, or have the server parse dates (--csv-dates)" in details
    rows = [["2020-02-29T12:00:00", 1.5, "2021-01-01"], ["2020-03-01T00:00:00", 2.5, None]]
    same = ask(split(["when", "x", "until"], *rows), "application/json")
    assert (200, parsing(CSV, mlflow_content_type="text/csv")) == same
    code, details = refused(parsing, CSV.replace("2020-03-01T00:00:00", "soon"), mlflow_content_type="text/csv")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "when: row 1, column when is a string that is not a date and time" in details


@pytest.mark.parametrize(
    ("moment", "problem"),
    [("yesterday", "is a string that is not a date and time"), ("2020-02-29 10:00:00+02:00", "has a time zone")],
)
def test_an_invalid_date_in_csv(dated, moment, problem):
    """The error has the advice of valid dates, because no date at all is accepted in CSV."""
    _, call, _ = dated
    code, details = refused(call, f"when,x\n{moment},1.5\n", mlflow_content_type="text/csv")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    advice = "which MLflow does not take in CSV: send dataframe_records, or have the server parse dates (--csv-dates)"
    assert f"when: row 0, column when {problem}; must be datetime, {advice}" in details


def test_dates_of_different_forms_beside_null(dated):
    """The error is about the forms, because null is accepted beside dates of one form. pandas 2 takes all forms."""
    ask, call, _ = dated
    mixed = split(["when", "x"], ["2020-02-29T12:00:00", 1], ["2020-03-01", 2], [None, 3])
    if versions.has_pandas_2():
        assert ask(mixed, "application/json") == (200, call(mixed))
        return
    assert ask(mixed, "application/json")[0] == 400
    assert ask(mixed.replace("2020-03-01", "2020-03-01T00:00:00"), "application/json")[0] == 200
    assert "when: the strings differ in form; write all of them alike" in refused(call, mixed)[1]
