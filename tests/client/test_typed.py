"""Calls in a model's own types with a real server have the answers of JSON calls."""

import asyncio
import datetime as dt
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import grpc
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow_grpc_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidInput,
    ModelError,
    PredictError,
    Unavailable,
    _wire,
)

from mlflow_grpc.config import ModelConfig
from tests.parity.test_typed import in_any_order
from tests.support import zoo
from tests.support.newer_models import Level, Size
from tests.support.servers import free_port, serving_models

NEWER = "tests.support.newer_models."
ZOO = (
    "numbers", "every_column", "optional", "unnamed", "unnamed_one", "structures", "nested", "tensor", "tensor_ints",
    "tensors", "params", "no_signature", "hint_dict", "hint_any", "hint_person", "unnamed_map", "unnamed_object",
    "numbered",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ZOO:
        zoo.save(f"rows_{name}", folder / name)
    return folder


@pytest.fixture(scope="module")
def address(folder, iris):
    """A server with MLflow models and MLModel packages."""
    models = [
        ModelConfig(uri=str(iris.path), name="iris", endpoint=True),
        *(ModelConfig(uri=str(folder / name), name=name, endpoint=True) for name in ZOO),
        *(ModelConfig(class_path=NEWER + name, endpoint=True) for name in ("Echo", "Mirror", "Liar")),
        ModelConfig(class_path=f"{NEWER}Echo", name="Quiet", endpoint=False),
        ModelConfig(class_path=f"{NEWER}Breaks", name="broken", endpoint=True),
    ]
    with serving_models([(model, "no weights" if model.name == "broken" else None) for model in models]) as running:
        yield running.address


@pytest.fixture
def client(make_client, address):
    return make_client(address)


FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [6.0, 2.7, 5.1, 1.6]]
COLUMNS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]


def test_iris(client):
    """One flower by keywords or in a dict, and several in a DataFrame or dicts, have the answers of `predict`."""
    frame = pd.DataFrame(FLOWERS, columns=COLUMNS)
    records = [dict(zip(COLUMNS, flower, strict=True)) for flower in FLOWERS]
    expected = client.predict(frame, model="iris")
    iris = client.model("iris")
    assert [iris.predict(**record) for record in records] == expected
    assert [iris.predict(record) for record in records] == expected
    assert iris.predict(records) == expected
    assert iris.predict(frame) == expected
    assert iris.predict(frame.astype("float32")) == client.predict(frame.astype("float32"), model="iris")
    assert iris.predict(frame[::-1]) == expected[::-1]
    assert iris.predict([]) == []


MIRROR_RECORD = {
    "integer": 2**63 - 1, "number": 0.0, "flag": False, "text": "", "data": "é".encode(), "day": dt.date(2020, 2, 29),
    "moment": dt.datetime(2020, 2, 29, 12, 0, 0, 1, tzinfo=dt.UTC), "uuid": UUID(int=1), "decimal": "0.10",
    "size": Size.LARGE, "level": Level.HIGH, "literal": "B c", "part": {"weight": 1.5, "tags": ["x"]}, "parts": [],
    "numbers": [1.0, None], "counts": {"k": 0}, "groups": {"g": [1, 2]}, "anything": {"a": [1, "x", None, False]},
    "mixed": [1, "y"], "either": "word", "labels": ["one"], "strange name!": 7,
    "branch": {"name": "root", "children": [{"name": "leaf", "children": []}]},
}  # fmt: skip
AS_JSON = {
    **MIRROR_RECORD, "data": "é", "day": "2020-02-29", "moment": "2020-02-29T12:00:00.000001Z", "uuid": str(UUID(int=1)),
    "size": "large", "level": 2,
}  # fmt: skip


def test_fields_of_all_types(client):
    """Answers equal those of JSON, except that bytes and times are Python values, and absent values are None."""
    expected = client.predict(AS_JSON, model="mirror")
    answer = client.model("mirror").predict(MIRROR_RECORD)
    moment = dt.datetime.fromisoformat(expected["moment"])
    assert answer == {**expected, "data": expected["data"].encode(), "moment": moment}
    assert answer["maybe"] is None
    assert client.model("mirror").predict(answer) == answer
    more = {"maybe": 1.5, "maybe_list": [3]}
    assert client.model("mirror").predict([MIRROR_RECORD, {**MIRROR_RECORD, **more}]) == [answer, {**answer, **more}]


def same(client, name, rows, payload):
    """Checks that the model gets the same input by both calls, which it returns."""
    assert client.model(name).predict(rows) == client.predict(payload, model=name)


WHEN = ["2020-02-29T12:00:00.123456789", "2021-01-01T00:00:00.000000001"]


@pytest.mark.parametrize(
    ("name", "rows", "payload"),
    [
        ("numbers", [{"a": 1, "b": 2.5}, {"a": 2**63 - 1, "b": -0.0}], [{"a": 1, "b": 2.5}, {"a": 2**63 - 1, "b": -0.0}]),
        ("numbers", pd.DataFrame({"b": [0.5, np.nan], "a": [1, 2]}), pd.DataFrame({"b": [0.5, np.nan], "a": [1, 2]})),
        (
            "every_column",
            pd.DataFrame(
                {"boolean": [True, False], "integer": np.array([1, 2], "i4"), "long": [1, 2], "float": np.array([0.5, 1], "f4"),
                 "double": [0.1, 2], "string": ["a", ""], "binary": [b"\xff", b""], "datetime": pd.to_datetime(WHEN)}
            ),
            [
                {"boolean": True, "integer": 1, "long": 1, "float": 0.5, "double": 0.1, "string": "a", "binary": "/w==", "datetime": WHEN[0]},
                {"boolean": False, "integer": 2, "long": 2, "float": 1, "double": 2, "string": "", "binary": "", "datetime": WHEN[1]},
            ],
        ),
        (
            "optional",
            pd.DataFrame({"need": [1.0, 2.0], "may_string": ["x", None], "may_double": [None, 0.5]}),
            [{"need": 1.0, "may_string": "x", "may_double": None}, {"need": 2.0, "may_string": None, "may_double": 0.5}],
        ),
        ("nested", [{"words": [["a"], []]}, {"words": [], "people": [{"name": "x"}]}], [{"words": [["a"], []], "people": None}, {"words": [], "people": [{"name": "x"}]}]),
    ],
)  # fmt: skip
def test_rows_with_names(client, name, rows, payload):
    """A batch takes rows as a DataFrame or as dicts, with missing values."""
    same(client, name, rows, payload if isinstance(payload, pd.DataFrame) else {"dataframe_records": payload})


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame([[1, 2.5], [2, 3.5]]),
        pd.DataFrame([[2.5, 1], [3.5, 2]], columns=np.array([1, 0])).astype({0: "int64"}),
        pd.DataFrame([[1, 2.5], [2, 3.5]], columns=["0", "1"]),
        [{0: 1, 1: 2.5}, {np.int64(0): 2, "1": 3.5}],
    ],
)
def test_labels_that_are_numbers(client, rows):
    """A column is found by its number, as in pandas, and by the text for it in messages."""
    same(client, "numbered", rows, {"dataframe_split": {"columns": [0, 1], "data": [[1, 2.5], [2, 3.5]]}})
    with pytest.raises(TypeError, match=r"^2: there is no such field"):
        client.model("numbered").predict(pd.DataFrame([[1, 2.5, 0]]))
    with pytest.raises(TypeError, match="given twice"):
        client.model("numbered").predict([{0: 1, "0": 1, 1: 2.5}])


@pytest.mark.parametrize(
    ("name", "rows", "payload"),
    [
        ("unnamed", [[1, 2.5], [2, 3.5]], {"dataframe_split": {"data": [[1, 2.5], [2, 3.5]]}}),
        ("unnamed", pd.DataFrame([[1, 2.5]]), {"dataframe_split": {"data": [[1, 2.5]]}}),
        ("unnamed_one", [1.5, 2.5], {"inputs": [1.5, 2.5]}),
        ("unnamed_one", np.array([[1.5], [2.5]]), {"inputs": [1.5, 2.5]}),
        ("tensor", np.array([[1.5, 2], [3, 4]]), {"inputs": [[1.5, 2], [3, 4]]}),
        ("tensor", [[1.5, 2], [3, 4]], {"inputs": [[1.5, 2], [3, 4]]}),
        ("tensor_ints", np.array([1, 255], "uint8"), {"inputs": [1, 255]}),
        (
            "tensors",
            [{"x": [1.0, 2.0], "mask": 3}, {"x": np.ones(2), "mask": 4}],
            {"inputs": {"x": [[1.0, 2.0], [1.0, 1.0]], "mask": [3, 4]}},
        ),
    ],
)
def test_rows_without_names(client, name, rows, payload):
    """Arrays and nested lists, for tensors and for unnamed columns."""
    same(client, name, rows, payload)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hint_any", [{"value": 5}, {"value": {"value": 5}}, {}, [{"value": 1}], None, "x"]),
        ("hint_dict", [{"value": 5}, {}]),
        ("hint_person", [{"name": "x", "age": 3, "score": 0.5, "addresses": []}]),
    ],
)
def test_dicts_as_values_of_the_only_input(client, name, values):
    """For an unnamed input, a dict is the model's input, alone, in rows and in a stream; keywords are fields."""
    model = client.model(name)
    expected = [in_any_order(answer) for answer in client.predict({"inputs": values}, model=name)]
    assert [in_any_order(answer) for answer in model.predict(values)] == expected
    assert [in_any_order(answer) for answer in model.predict_many(values)] == expected
    assert [in_any_order(model.predict(value=value)) for value in values if value is not None] == [
        answer for answer, value in zip(expected, values, strict=True) if value is not None
    ]
    for answer, value in zip(expected, values, strict=True):
        assert not isinstance(value, dict) or in_any_order(model.predict(value)) == answer


@pytest.mark.parametrize(
    ("name", "value"), [("unnamed_map", {"value": 5}), ("unnamed_object", {"name": "x", "age": 2**60})]
)
def test_dicts_as_values_of_an_unnamed_column(client, name, value):
    """For an unnamed column of a signature, a dict is the column's value."""
    model = client.model(name)
    (expected,) = client.predict({"dataframe_split": {"data": [[value]]}}, model=name)
    answers = (model.predict(value), model.predict(value=value), *model.predict([value]), *model.predict_many([value]))
    assert [in_any_order(answer) for answer in answers] == [in_any_order(expected)] * 4


def test_one_row_of_a_tensor(client):
    """One row of a tensor is passed by the name of its field."""
    (expected,) = client.predict({"inputs": [[1.5, 2]]}, model="tensor")
    assert client.model("tensor").predict(value=[1.5, 2]) == expected
    assert client.model("tensor").predict({"value": np.array([1.5, 2])}) == expected


def test_the_contract(client):
    """Both clients return the types of a model."""
    assert list(client.model("numbers").contract().row.by_name) == ["a", "b"]


def test_params(client):
    """Params are passed beside the fields, for one record and for rows."""
    params = {"top_k": 5, "stops": ["x", "y"], "since": dt.datetime(2021, 1, 1)}
    expected = client.predict(
        {"dataframe_records": [{"a": 1.0}]}, {**params, "since": "2021-01-01T00:00:00"}, model="params"
    )
    model = client.model("params")
    assert [in_any_order(answer) for answer in model.predict([{"a": 1}], params=params)] == [in_any_order(expected[0])]
    assert in_any_order(model.predict(a=1, params=params)) == in_any_order(expected[0])
    with pytest.raises(TypeError, match=r"params\.top: there is no such field; there are: temperature, top_k"):
        model.predict(a=1, params={"top": 1})
    with pytest.raises(TypeError, match="the model numbers takes no params"):
        client.model("numbers").predict(a=1, b=1, params={})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.predict(a=1.5, b=2), ValueError, "a: 1.5 is not a whole number"),
        (lambda model: model.predict(a=1, bb=2), TypeError, "bb: there is no such field; there are: a, b"),
        (lambda model: model.predict({"a": 1}, b=2), TypeError, "not both$"),
        (
            lambda model: model.predict({"a": 1}, timeout_s=2),
            TypeError,
            r"not both; timeout_s: give it to Client\.model$",
        ),
        (lambda model: model.predict("a"), TypeError, "str is not a record"),
        (lambda model: model.predict([[1, 2.5]]), TypeError, "the model's columns have names"),
        (lambda model: model.predict([{"a": 1, "b": 1.0}, {"a": "x", "b": 1.0}]), TypeError, r"a\[1\]: str"),
    ],
)
def test_invalid_calls_name_the_field(client, call, error, message):
    """An invalid typed call raises a TypeError or ValueError with the name of the field."""
    with pytest.raises(error, match=message):
        call(client.model("numbers"))


@pytest.mark.parametrize("values", [[1.0, 1.5], [1, 2**31]])
def test_invalid_numbers_of_a_frame_name_the_row(client, values):
    """The error of a column of numbers has the index of the row, also if rows may be null."""
    frame = pd.DataFrame({"need": [1.0, 1.0], "may_integer": values})
    with pytest.raises(ValueError, match=rf"may_integer\[1\]: {re.escape(str(values[1]))} is not"):
        client.model("optional").predict(frame)


def test_errors_have_the_field_and_the_class(client):
    """Missing fields are reported by the server, and exceptions of the model by their type."""
    with pytest.raises(InvalidInput) as refused:
        client.model("numbers").predict(b=1.0)
    assert [violation.field for violation in refused.value.violations] == ["a"]
    assert refused.value.error_class == "SCHEMA_ENFORCEMENT_FAILED"
    assert "a: missing" in str(refused.value)
    assert "SCHEMA_ENFORCEMENT_FAILED" in str(refused.value)
    with pytest.raises(ModelError) as failed:
        client.model("echo").predict(name="raise", born="2020-02-29")
    assert failed.value.error_class == "ValueError"
    assert "ValueError" in str(failed.value)
    with pytest.raises(InvalidInput, match=r"INVALID_ARGUMENT: .*parts.*weight.*request id mine"):
        client.model("echo", request_id="mine").predict(name="x", born="2020-02-29", parts=[{"weight": -1}])


STRUCTURES = {"numbers": [1.0], "person": {"name": "x"}, "counts": {"a": 1}}


@pytest.mark.parametrize("left_out", [["numbers"], ["counts"], ["counts", "person"]])
def test_missing_lists_and_maps_are_named(client, left_out):
    """InvalidInput names them like other required fields, in rows and in a stream's turn too."""
    model = client.model("structures", request_id="mine")
    record = {name: value for name, value in STRUCTURES.items() if name not in left_out}
    incomplete_records = [record, {**record, **dict.fromkeys(left_out)}]
    for rows in (*incomplete_records, *([item] for item in incomplete_records), pd.DataFrame([record])):
        with pytest.raises(InvalidInput, match=f"{left_out[0]}: missing.*SCHEMA_ENFORCEMENT_FAILED.*mine") as caught:
            model.predict(rows)
        assert sorted(violation.field for violation in caught.value.violations) == left_out
    answers = list(model.predict_many([STRUCTURES, record, STRUCTURES], on_error="return"))
    assert [type(answer) for answer in answers] == [dict, InvalidInput, dict]
    assert (answers[1].args[1], answers[1].request_id) == (caught.value.message, "mine")
    assert model.predict({**STRUCTURES, "numbers": [], "counts": {}})


def test_a_missing_column_is_named(client):
    """A missing column is named even if no other column has the number of rows."""
    for rows in (pd.DataFrame({"a": [1, 2]}), [{"a": 1}], pd.DataFrame({"a": [1, 2], "b": [None, None]})):
        with pytest.raises(InvalidInput, match="b: missing"):
            client.model("numbers").predict(rows)
    with pytest.raises(InvalidInput, match=r"a: missing.*b: missing"):
        client.model("numbers").predict([{}])
    with pytest.raises(TypeError, match="c: there is no such field"):
        client.model("numbers").predict(pd.DataFrame({"a": [], "c": []}))
    assert client.model("numbers").predict(pd.DataFrame({"a": [], "b": []})) == []


def test_none_is_not_a_default(client):
    """None is refused where the wire cannot distinguish it from the default. In any-valued fields it is null, in rows
    too."""
    mirror = client.model("mirror")
    for call in (
        lambda: mirror.predict({**MIRROR_RECORD, "defaulted": None}),
        lambda: mirror.predict([MIRROR_RECORD, {**MIRROR_RECORD, "defaulted": None}]),
        lambda: mirror.predict(pd.DataFrame([MIRROR_RECORD, {**MIRROR_RECORD, "defaulted": 7}])),
    ):
        with pytest.raises(ValueError, match=r"defaulted(\[\d\])?: None would become the field's default"):
            call()
    assert mirror.predict({**MIRROR_RECORD, "maybe": None})["defaulted"] == 7
    assert [answer["defaulted"] for answer in mirror.predict([MIRROR_RECORD, {**MIRROR_RECORD, "defaulted": 8}])] == [
        7,
        8,
    ]
    with pytest.raises(ValueError, match=r"params\.top_k: None would become"):
        client.model("params").predict(a=1, params={"top_k": None})
    expected = client.predict({**AS_JSON, "anything": None}, model="mirror")["anything"]
    assert (mirror.predict({**MIRROR_RECORD, "anything": None})["anything"], expected) == (None, None)
    assert mirror.predict([{**MIRROR_RECORD, "anything": None}, MIRROR_RECORD])[0]["anything"] is None


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("nope", "NOT_FOUND", r"There is no such model here\. There are: iris, numbers, "),
        (
            "no_signature",
            "UNIMPLEMENTED",
            r"has no signature, so no types: use client\.predict\(data, model='no_signature'\)",
        ),
        ("Quiet", "UNIMPLEMENTED", r"The model Quiet/1\.2\.0 has no endpoint"),
        ("broken", "FAILED_PRECONDITION", "The model broken could not be loaded: no weights"),
        ("", "INVALID_ARGUMENT", "name"),
    ],
)
def test_models_that_cannot_be_called(client, name, code, message):
    """The error of a model without typed calls has the reason and an alternative."""
    with pytest.raises(PredictError, match=message) as caught:
        client.model(name).predict(a=1)
    assert caught.value.code.name == code


def test_a_model_by_its_version(client):
    """A model can be called with its version."""
    answers = [client.model(name).predict(name="x", born="2020-02-29") for name in ("echo", "echo/1.2.0")]
    assert answers[0] == answers[1]


def test_options_apply_to_all_requests(make_client, scripted_server):
    """Deadline, request id and metadata apply to earlier requests for types too; invalid ones are refused at once."""
    client = make_client(scripted_server.address)
    scripted_server.behaviour = lambda data, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    with pytest.raises(PredictError, match="no"):
        client.model("a", request_id="mine", metadata={"authorization": "x"}).predict(a=1)
    sent = dict(scripted_server.calls[0].invocation_metadata())
    assert (sent["x-request-id"], sent["authorization"]) == ("mine", "x")
    with pytest.raises(ValueError, match="the timeout"):
        client.model("a", timeout_s=0)
    with pytest.raises(TypeError, match=r"the name of a model is a text, .* not int"):
        client.model(5)
    with pytest.raises(ValueError, match="metadata key"):
        client.model("a", metadata={"A": "x"})


def test_types_are_fetched_once(address):
    """For many threads or tasks at a time, the model and the descriptors are fetched once, and then only predictions."""
    methods = []

    class Counting(Client):
        def _send(self, call):
            methods.append(call.method.rpartition("/")[2])
            return super()._send(call)

    class AsyncCounting(AsyncClient):
        async def _send(self, call):
            methods.append(call.method.rpartition("/")[2])
            return await super()._send(call)

    with Counting(address) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: client.model("numbers").predict(a=index, b=1.0), range(20)))

    async def many():
        async with AsyncCounting(address) as client:
            await asyncio.gather(*(client.model("numbers").predict(a=index, b=1.0) for index in range(20)))

    assert sorted(methods) == sorted(["GetModel", "ServerReflectionInfo", *["numbers_predict"] * 20])
    methods.clear()
    asyncio.run(many())
    assert sorted(methods) == sorted(["GetModel", "ServerReflectionInfo", *["numbers_predict"] * 20])


def at(address, folder, name):
    """Starts a server at an address, with a model called m."""
    return serving_models(
        [(ModelConfig(uri=str(folder / name), name="m", endpoint=True), None)], port=int(address.rpartition(":")[2])
    )


def test_a_server_with_another_contract(make_client, folder):
    """After a failed call with outdated types, the types are fetched again; the caller's own errors are kept."""
    address = f"127.0.0.1:{free_port()}"
    model = make_client(address).model("m")
    with at(address, folder, "numbers"):
        assert model.predict(a=1, b=2.5)["input"]["columns"] == [["'a'", "int64"], ["'b'", "float64"]]
        with pytest.raises(InvalidInput):
            model.predict(a=1)
    with at(address, folder, "tensors"):
        with pytest.raises(TypeError, match="a: there is no such field; there are: x, mask"):
            model.predict(a=1, b=2.5)
        assert model.predict(x=[1.0, 2.0], mask=3)["input"]["type"] == "dict"
    with at(address, folder, "every_column"), pytest.raises(InvalidInput, match="long: missing"):
        model.predict(boolean=True)
    with at(address, folder, "numbers"):
        assert next(model.predict_many([{"a": 1, "b": 2.5}]))["input"]["type"] == "DataFrame"
    with at(address, folder, "no_signature"), pytest.raises(PredictError, match="has no signature"):
        model.predict(x=[1.0, 2.0], mask=3)


def test_a_server_with_other_types_of_the_same_names(make_client, tmp_path):
    """A value that does not fit the outdated types fetches the new ones; one that fits neither is refused."""
    for name, data_type in (("whole", DataType.long), ("text", DataType.string)):
        signature = ModelSignature(Schema([ColSpec(data_type, "x")]))
        mlflow.pyfunc.save_model(
            tmp_path / name, python_model=zoo.EchoRows(), signature=signature, pip_requirements=["mlflow"]
        )
    address = f"127.0.0.1:{free_port()}"
    model = make_client(address).model("m")
    for name, value, message in (("whole", 1, "int 1"), ("text", "a", "str 'a'"), ("whole", 2, "int 2")):
        with at(address, tmp_path, name):
            for echo in (model.predict(x=value), model.predict([{"x": value}])[0]):
                assert echo["input"]["cells"] == [[message]]
            with pytest.raises(TypeError, match="x: list is not a"):
                model.predict(x=[1])


@pytest.fixture
def held(scripted_server):
    """The bare server, whose answers wait until they are released and then fail, and an event for the first call."""
    arrived, let_go = threading.Event(), threading.Event()

    def behaviour(data, context):
        arrived.set()
        let_go.wait(30)
        context.abort(grpc.StatusCode.INTERNAL, "no")

    scripted_server.behaviour = behaviour
    yield arrived, let_go
    let_go.set()


def test_waiting_for_types_has_the_callers_deadline(make_client, scripted_server, held):
    """A call waits up to its own deadline, also for types that another call is fetching."""
    arrived, let_go = held
    client = make_client(scripted_server.address)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.model("a", timeout_s=30).predict, a=1)
        assert arrived.wait(30)
        with pytest.raises(DeadlineExceeded, match=r"No answer came within 0\.2 s"):
            client.model("a", timeout_s=0.2).predict(a=1)
        assert not first.done()
        let_go.set()
        with pytest.raises(ModelError, match="no"):
            first.result(30)
    assert len(scripted_server.calls) == 1


def test_waiting_calls_share_the_outcome_of_a_fetch(scripted_server, held):
    """An error of a fetch is raised for all waiting calls, except the deadline or cancellation of the call that
    fetches."""
    arrived, let_go = held

    async def main():
        async with AsyncClient(scripted_server.address) as client:
            calls = [asyncio.create_task(client.model("a").predict(a=1)) for _ in range(8)]
            await asyncio.to_thread(arrived.wait, 30)
            let_go.set()
            assert [type(answer) for answer in await asyncio.gather(*calls, return_exceptions=True)] == [ModelError] * 8
            assert len(scripted_server.calls) == 1
            arrived.clear()
            let_go.clear()
            impatient = asyncio.create_task(client.model("b", timeout_s=0.2).predict(a=1))
            await asyncio.sleep(0)
            patient = asyncio.create_task(client.model("b").predict(a=1))
            with pytest.raises(DeadlineExceeded):
                await impatient
            let_go.set()
            with pytest.raises(ModelError):
                await patient
            let_go.clear()
            arrived.clear()
            cancelled = asyncio.create_task(client.model("c").predict(a=1))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(client.model("c").predict(a=1))
            await asyncio.to_thread(arrived.wait, 30)
            cancelled.cancel()
            let_go.set()
            with pytest.raises(ModelError):
                await waiting

    asyncio.run(main())


def test_a_server_with_reordered_columns(make_client, tmp_path):
    """No value is read as another column: the call is refused, and repeated with the current types."""
    for name in ("xy", "yx"):
        schema = Schema([ColSpec(DataType.double, column) for column in name])
        mlflow.pyfunc.save_model(
            tmp_path / name, python_model=zoo.EchoRows(), signature=ModelSignature(schema), pip_requirements=["mlflow"]
        )
    address = f"127.0.0.1:{free_port()}"
    model = make_client(address).model("m")
    rows = [{"y": 2.0, "x": 1.0}]
    for name in ("xy", "yx"):
        with at(address, tmp_path, name):
            for echo in (model.predict(x=1.0, y=2.0), model.predict(rows)[0]):
                assert echo["input"]["columns"] == [[f"'{column}'", "float64"] for column in name]
                assert echo["input"]["cells"] == [[f"float {1.0 if column == 'x' else 2.0}"] for column in name]


def test_a_server_without_reflection(make_client, folder):
    """A typed call to a server without reflection raises an error that says so."""
    models = [(ModelConfig(uri=str(folder / "numbers"), name="numbers", endpoint=True), None)]
    with serving_models(models, reflection=False) as server:
        with pytest.raises(PredictError, match="has no reflection") as caught:
            make_client(server.address).model("numbers").predict(a=1, b=1)
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_no_server(make_client, fast_retries):
    """A typed call to a missing server raises Unavailable."""
    with pytest.raises(Unavailable):
        make_client("127.0.0.1:1").model("iris").predict(a=1)


def test_unavailable_is_retried(make_client, fast_retries, scripted_server):
    """Requests before the first prediction are retried four times, like predictions."""
    client = make_client(scripted_server.address)
    scripted_server.behaviour = lambda data, context: context.abort(grpc.StatusCode.UNAVAILABLE, "no")
    with pytest.raises(Unavailable):
        client.model("a").predict(a=1)
    assert len(scripted_server.calls) == 5


def test_a_loading_model_is_retried(make_client, scripted_server, fast_retries):
    """The types of a model that is loading are requested again up to four times within the deadline, and a model
    that does not become ready is Unavailable."""
    model = _wire.Model(name="a", state="LOADING")
    states = iter(["LOADING", "LOADING", "FAILED"])

    def behaviour(data, context):
        model.state = model.State.Value(next(states, "LOADING"))
        return model.SerializeToString()

    scripted_server.behaviour = behaviour
    client = make_client(scripted_server.address)
    with pytest.raises(PredictError, match="could not be loaded"):
        client.model("a").predict(a=1)
    assert len(scripted_server.calls) == 3
    with pytest.raises(Unavailable, match="The model a is not ready: LOADING"):
        client.model("a").predict(a=1)
    assert len(scripted_server.calls) == 8


def test_typed_rpcs_of_a_starting_server_are_awaited(make_client, scripted_server, fast_retries):
    """A ready model with types may have no typed RPC until the server has loaded the others, which health says: until
    then the call is retried, and Unavailable in the end."""
    model = _wire.Model(name="a", state="READY", input={}, rpcs=[{"path": "/MLflow/predict"}])
    states = iter(["NOT_SERVING", "SERVING"])

    def behaviour(data, context):
        if data:
            return model.SerializeToString()
        return _wire.HealthCheckResponse(status=next(states, "NOT_SERVING")).SerializeToString()

    scripted_server.behaviour = behaviour
    client = make_client(scripted_server.address)
    with pytest.raises(PredictError, match="The model a has no typed RPC on this server") as caught:
        client.model("a").predict(a=1)
    assert (caught.value.code, len(scripted_server.calls)) == (grpc.StatusCode.UNIMPLEMENTED, 4)
    with pytest.raises(Unavailable, match="The model a has no typed RPC yet"):
        client.model("a").predict(a=1)
    assert len(scripted_server.calls) == 4 + 2 * 5


def test_retries_for_a_loading_model_stop_at_the_deadline(make_client, scripted_server):
    """A pause that does not fit into the deadline is not made."""
    model = _wire.Model(name="a", state="LOADING")
    client = make_client(scripted_server.address)
    client.predict_text("x")  # Connects.
    scripted_server.behaviour = lambda data, context: model.SerializeToString()
    scripted_server.calls.clear()
    with pytest.raises((Unavailable, DeadlineExceeded)):
        client.model("a", timeout_s=0.2).predict(a=1)
    assert 1 <= len(scripted_server.calls) <= 3


def test_a_closed_client(make_client, address):
    """A typed call of a closed client fails, and the error says that the client is closed."""
    client = make_client(address)
    assert client.model("numbers").predict(a=1, b=1.0)
    client.close()
    with pytest.raises(PredictError, match="The client is closed"):
        client.model("numbers").predict(a=1, b=1.0)


def test_it_imports_no_heavy_library(address):
    """Typed calls and streams import only grpcio and protobuf."""
    code = """
import sys
from mlflow_grpc_client import Client
with Client(sys.argv[1]) as client:
    numbers, tensor = client.model("numbers"), client.model("tensor")
    assert numbers.predict(a=1, b=2.5) == next(numbers.predict_many([{"a": 1, "b": 2.5}]))
    assert len(numbers.predict([{"a": 1, "b": 2.5}] * 3)) == 3
    assert tensor.predict([[1.5, 2.0]]) == [tensor.predict(value=(1.5, 2.0))]
print([name for name in ("mlflow", "mlflow_grpc", "pandas", "numpy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, address], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
