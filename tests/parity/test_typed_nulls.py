"""Nulls within arrays and maps of columns: typed calls accept and return them where JSON does, with the same values."""

import base64
import datetime
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import mlflow
import numpy as np
import pandas as pd
import pydantic
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Map, Object, Property
from mlflow_grpc_client import Client, PredictError

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.support import depth
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller

cloudpickle.register_pickle_by_value(sys.modules[__name__])

PERSON = Object([Property("a", DataType.double), Property("b", DataType.string, required=False)])
LISTS = Object(
    [
        Property("v", Array(DataType.double)),
        Property("w", Array(DataType.string), required=False),
        Property("m", Map(DataType.double)),
        Property("n", Map(DataType.double), required=False),
    ]
)
COLUMNS: dict[str, tuple[Any, Any]] = {
    "flags": (Array(DataType.boolean), [True]),
    "whole": (Array(DataType.long), [1]),
    "doubles": (Array(DataType.double), [1.5]),
    "texts": (Array(DataType.string), ["text"]),
    "data": (Array(DataType.binary), ["YQ=="]),
    "map": (Map(DataType.double), {"k": 1.5}),
    "map_of_texts": (Map(DataType.string), {"k": "text"}),
    "map_of_flags": (Map(DataType.boolean), {"k": True}),
    "map_of_whole": (Map(DataType.long), {"k": 1}),
    "matrix": (Array(Array(DataType.double)), [[1.5]]),
    "maps": (Array(Map(DataType.double)), [{"k": 1.5}]),
    "map_of_lists": (Map(Array(DataType.double)), {"k": [1.5]}),
    "map_of_maps": (Map(Map(DataType.string)), {"k": {"k": "text"}}),
    "people": (Array(PERSON), [{"a": 1.5, "b": "text"}]),
    "map_of_people": (Map(PERSON), {"k": {"a": 1.5, "b": "text"}}),
    "object": (LISTS, {"v": [1.5], "w": ["text"], "m": {"k": 1.5}, "n": {"k": 1.5}}),
}
"""Types, each with a value as JSON."""


def with_nulls(value: Any) -> Iterator[Any]:
    """Returns the value with a null in one of the positions inside its lists and maps."""
    if isinstance(value, list):
        yield from ([*value, None], [None, *value], [None])
        yield from ([variant] for variant in with_nulls(value[0]))
    elif isinstance(value, dict) and set(value) == {"k"}:
        yield from ({**value, "none": None}, {"none": None})
        yield from ({"k": variant} for variant in with_nulls(value["k"]))
    elif isinstance(value, dict):
        yield from ({**value, key: variant} for key in value for variant in with_nulls(value[key]))


NULLS = [
    (name, value)
    for name, (_, plain) in COLUMNS.items()
    for variants in [list(with_nulls(plain))]
    for value in (variants if depth.is_deep else variants[-1:])
]


class Tells(PythonModel):
    """Returns its input as MLflow's parser made it, with maps in the order of their keys."""

    def predict(self, context, model_input, params=None):
        rows = [{name: ordered(value) for name, value in row.items()} for row in model_input.to_dict("records")]
        return [f"{row} {params}" for row in rows]


def ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


MOMENT = pd.Timestamp("2020-02-29T12:00:00")
ANSWERS: dict[str, tuple[Any, list[Any]]] = {
    "flags": (Array(DataType.boolean), [[True, None], [None], []]),
    "whole": (Array(DataType.long), [[1, None], np.array([1, None], dtype=object), (None, 2)]),
    "doubles": (
        Array(DataType.double),
        [[1.0, None], [None, math.nan, 1.0], np.array([1.0, math.nan]), np.ma.masked_array([1.0, 2.0], [False, True])],
    ),
    "floats": (Array(DataType.float), [[None, 0.5]]),
    "texts": (Array(DataType.string), [["a", None, ""]]),
    "moments": (Array(DataType.datetime), [[MOMENT, None]]),
    "map": (Map(DataType.double), [{"k": None}, {"k": None, "x": 1.5, "": None}]),
    "map_of_texts": (Map(DataType.string), [{"k": None, "x": ""}]),
    "matrix": (Array(Array(DataType.double)), [[[1.0, None], None, []], [None]]),
    "maps": (Array(Map(DataType.double)), [[{"k": None}, None]]),
    "map_of_lists": (Map(Array(DataType.double)), [{"k": [None, 1.0], "x": None}]),
    "people": (Array(PERSON), [[{"a": 1.5, "b": "text"}, None, {"a": 2.5, "b": None}]]),
    "object": (LISTS, [{"v": [None, 1.0], "w": [None], "m": {"k": None}, "n": None}]),
}
"""Types, and answers with nulls."""
ANSWER_INDEXES = [(name, index) for name, (_, values) in ANSWERS.items() for index in range(len(values))]


class Gives(PythonModel):
    """Returns the column and the answer that the input names, in a table or in records."""

    def __init__(self, as_frame: bool) -> None:
        self.as_frame = as_frame

    def predict(self, context, model_input, params=None):
        rows = model_input.to_dict("records")
        answers = [{row["name"]: ANSWERS[row["name"]][1][row["place"]]} for row in rows]
        complete = [{**dict.fromkeys(ANSWERS), **answer} for answer in answers]
        return pd.DataFrame(complete, dtype=object) if self.as_frame else complete

    def predict_stream(self, context, model_input, params=None):
        yield from self.predict(context, model_input)


class NullableLists(pydantic.BaseModel):
    v: list[float | None] = []
    w: dict[str, float | None] = {}
    n: list[list[int | None] | None] = []


class Lists(PythonModel):
    def predict(self, model_input: list[list[float | None]], params=None) -> list[list[float | None]]:
        return model_input


class Maps(PythonModel):
    def predict(self, model_input: list[dict[str, float | None]], params=None) -> list[dict[str, float | None]]:
        return model_input


class Parts(PythonModel):
    def predict(self, model_input: list[NullableLists], params=None) -> list[NullableLists]:
        return model_input


HINTED: dict[str, tuple[PythonModel, Any]] = {
    "lists": (Lists(), [1.0, None]),
    "maps": (Maps(), {"a": None, "b": 1.0}),
    "parts": (Parts(), {"v": [1, None], "w": {"a": None}, "n": [[1, None], None]}),
}
BARE: dict[str, Any] = {"bare_list": Array(DataType.double), "bare_map": Map(DataType.double)}
BARE_ANSWERS = {"bare_list": [1.0, None], "bare_map": {"k": None}}


class Bare(PythonModel):
    """Returns the only column, which has no name."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, context, model_input, params=None):
        return [self.answer] * len(model_input)

    def predict_stream(self, context, model_input, params=None):
        yield self.answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    directory: Path = tmp_path_factory.mktemp("nulls")

    def save(name: str, model: PythonModel, signature: ModelSignature | None = None) -> None:
        mlflow.pyfunc.save_model(directory / name, python_model=model, signature=signature, pip_requirements=["mlflow"])

    for required in (True, False):
        columns: list[Any] = [ColSpec(data_type, name, required=required) for name, (data_type, _) in COLUMNS.items()]
        params = ParamSchema([ParamSpec("p", DataType.double, [0.5], shape=(-1,))])
        signature = ModelSignature(Schema(columns), Schema([ColSpec(DataType.string)]), params)
        save("required" if required else "optional", Tells(), signature)
    outputs = Schema([ColSpec(data_type, name) for name, (data_type, _) in ANSWERS.items()])
    named = Schema([ColSpec(DataType.string, "name"), ColSpec(DataType.long, "place")])
    for name in ("frame", "records"):
        save(name, Gives(name == "frame"), ModelSignature(named, outputs))
    for name, data_type in BARE.items():
        save(name, Bare(BARE_ANSWERS[name]), ModelSignature(named, Schema([ColSpec(data_type)])))
    shared = Schema([ColSpec(Map(DataType.double), "map"), ColSpec(Array(Array(DataType.double)), "matrix")])
    save("shared", Tells(), ModelSignature(shared, shared))
    for name, (model, _) in HINTED.items():
        save(name, model)
    return directory


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    configs = [ModelConfig(uri=str(path), name=path.name, endpoint=True) for path in sorted(folder.iterdir())]
    with serving_models([(config, None) for config in configs]) as running:
        yield running.address


@pytest.fixture(scope="module")
def client(address) -> Iterator[Client]:
    with Client(address) as opened_client:
        yield opened_client


@pytest.fixture(scope="module")
def typed(address) -> Iterator[TypedCaller]:
    with Caller(address) as caller:
        yield TypedCaller(caller.channel)


@pytest.fixture(scope="module")
def oracle(folder) -> Callable[[str], Oracle]:
    return functools.cache(lambda name: oracle_of(folder / name))


def predictions(oracle: Oracle, payload: dict[str, Any]) -> Any:
    status, body = oracle(json.dumps(payload), "application/json")
    assert status == 200, body
    return json.loads(body)["predictions"]


def as_typed(name: str, value: Any) -> Any:
    """Returns a value for the typed client, with bytes for the texts that JSON has in their place."""
    if name == "data":
        return [None if text is None else text.encode() for text in value]
    return value


@pytest.mark.parametrize("model", [pytest.param("required", marks=pytest.mark.deep), "optional"])
def test_inputs(client, oracle, model):
    """For each position of a null, in one record and in rows, the model gets the same as from JSON, or both are
    refused."""
    full_record = {name: plain for name, (_, plain) in COLUMNS.items()}
    whole_typed = {name: as_typed(name, plain) for name, plain in full_record.items()}
    served, taken = client.model(model), set()
    for name, value in NULLS:
        record, typed_record = {**full_record, name: value}, {**whole_typed, name: as_typed(name, value)}
        status, body = oracle(model)(json.dumps({"dataframe_records": [record]}), "application/json")
        assert status in (200, 400), body
        if status == 200:
            taken.add(name)
            assert [served.predict(typed_record)] == json.loads(body)["predictions"], (name, value)
            expected = predictions(oracle(model), {"dataframe_records": [full_record, record, record]})
            assert served.predict([whole_typed, typed_record, typed_record]) == expected, (name, value)
            assert list(served.predict_many([whole_typed, typed_record])) == expected[:2], (name, value)
        else:
            with pytest.raises((PredictError, ValueError)) as caught:
                served.predict(typed_record)
            refused = caught.value
            assert name in str(refused)
            assert not isinstance(refused, PredictError) or refused.code is grpc.StatusCode.INVALID_ARGUMENT
    maps = {name for name in COLUMNS if name.startswith("map") and name != "map_of_lists"}
    assert taken == set(COLUMNS) - {"whole"} - (maps | {"maps", "people"} if model == "required" else set())


def test_a_frame(client, oracle):
    """Lists and dicts in columns of a DataFrame, and numpy arrays as lists."""
    rows = [{"doubles": [1.5, None], "map": {"k": None}}, {"doubles": [None], "map": {"k": 1.5}}]
    frame = pd.DataFrame({"doubles": [np.array([1.5, None], dtype=object), [pd.NA]], "map": [{"k": pd.NA}, {"k": 1.5}]})
    assert client.model("optional").predict(frame) == predictions(oracle("optional"), {"dataframe_records": rows})


def test_params(client, oracle):
    """MLflow does not check nulls in a list param."""
    rows = [{"doubles": [1.5]}]
    expected = predictions(oracle("optional"), {"dataframe_records": rows, "params": {"p": [1.5, None]}})
    assert "[1.5, None]" in expected[0]
    assert client.model("optional").predict(rows, params={"p": [1.5, None]}) == expected


@pytest.mark.parametrize("model", ["frame", pytest.param("records", marks=pytest.mark.deep)])
def test_answers(client, oracle, model):
    """Answers for one record, in rows, in a stream of records and in chunks equal JSON's, with None for null."""
    served = client.model(model)
    for name, index in ANSWER_INDEXES:
        row = {"name": name, "place": index}
        expected = predictions(oracle(model), {"dataframe_records": [row]})[0]
        answer = served.predict(row)
        assert in_json(answer) == in_json(expected), (name, index)
        assert list(map(in_json, served.predict([row, row]))) == [in_json(expected)] * 2
        assert [in_json(prediction) for prediction in served.predict_many([row])] == [in_json(expected)]


def in_json(value: Any) -> str:
    """Returns a value in JSON's form, where integers and floats are one type."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(item[key]) for key in sorted(item)}
        if isinstance(item, list):
            return list(map(plain, item))
        if isinstance(item, bytes):
            return base64.encodebytes(item).decode()
        if isinstance(item, datetime.datetime):
            return item.replace(tzinfo=None).isoformat()
        return float(item) if type(item) is int else item

    return json.dumps(plain(value))


@pytest.mark.parametrize("name", BARE)
def test_an_unnamed_answer(client, oracle, name):
    """An unnamed output is the prediction itself, for one record, for rows and for chunks."""
    row = {"name": "", "place": 0}
    expected = predictions(oracle(name), {"dataframe_records": [row]})
    assert [client.model(name).predict(row)] == expected == [BARE_ANSWERS[name]]
    assert client.model(name).predict([row]) == expected
    assert list(client.model(name).predict_stream(row)) == expected


@pytest.mark.parametrize("name", HINTED)
def test_type_hints(client, oracle, name):
    """Type hints declare nulls of inputs, and MLflow's signature keeps no such declaration for answers."""
    record = HINTED[name][1]
    expected = predictions(oracle(name), {"inputs": [record]})
    assert "null" in json.dumps(expected)
    assert [in_json(client.model(name).predict([record])[0])] == [in_json(expected[0])]
    assert [in_json(prediction) for prediction in client.model(name).predict_many([record])] == [in_json(expected[0])]


def test_messages_made_by_hand(typed, oracle):
    """Messages as compiled clients fill them: any value in the position of a null, and null keys present or absent."""
    full_record = {"doubles": [1.5], "map": {"k": 1.5}}
    record = {"doubles": [1.5, None], "map": {"k": 1.5, "none": None}}
    expected = predictions(oracle("optional"), {"dataframe_records": [full_record, record]})
    for entry in ({}, {"none": 7.0}):
        message = typed.input("optional_predict", {})
        message.doubles.values.extend([1.5, 7.0])
        message.doubles.values_null_items.append(1)
        message.map.values["k"] = 1.5
        message.map.values.update(entry)
        message.map.values_null_keys.append("none")
        assert typed("optional_predict", message).prediction == expected[1]
        rows = typed.input("optional_predict_batch", {"doubles": [{"values": [1.5]}], "map": [{"values": {"k": 1.5}}]})
        rows.doubles.append(message.doubles)
        rows.map.append(message.map)
        assert list(typed("optional_predict_batch", rows).prediction) == expected
    message.doubles.values_null_items.append(2)
    code, details = typed.outcome("optional_predict", message)
    assert code == "INVALID_ARGUMENT"
    assert "doubles has 2 values, counted from 0, and values_null_items names 2" in details


@pytest.mark.parametrize(
    ("name", "value", "pattern"),
    [
        ("map", {"k": None}, r"\[1\].map: must be Map\(.*\), and map.<1st key> is null"),
        ("matrix", [[1.5], None], r"\[1\].matrix: must be Array\(Array\(double\)\), and matrix\[1\] is null"),
    ],
)
def test_nulls_that_mlflow_refuses_are_named(client, oracle, name, value, pattern):
    """Rows share their messages with answers, which may have nulls. MLflow refuses the null, and the error names it."""
    full_record = {"map": {"k": 1.5}, "matrix": [[1.5]]}
    rows = [full_record, {**full_record, name: value}]
    assert oracle("shared")(json.dumps({"dataframe_records": rows}), "application/json")[0] == 400
    with pytest.raises(PredictError, match=pattern) as caught:
        client.model("shared").predict(rows)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(ValueError, match="None has no room in this list or map: the model takes no null there"):
        client.model("shared").predict(rows[1])


def test_the_companion_fields_for_nulls(typed):
    """Lists have a field for null indexes and maps one for null keys; where MLflow accepts no nulls there is no such
    field."""
    fields = {field.name: field.number for field in typed.method("required_predict").input_type.fields}
    beside = {name for name in fields if "_null_" in name}
    assert beside == {f"{name}_null_items" for name in ("flags", "doubles", "texts", "data")}
    assert fields["doubles_null_items"] == 200_000 + fields["doubles"]
    outputs = {field.name: field.number for field in typed.method("frame_predict").output_type.fields}
    lists = {"flags", "whole", "doubles", "floats", "texts", "moments", "matrix", "maps", "people"}
    assert {name for name in outputs if "_null_" in name} == {
        *(f"{name}_null_items" for name in lists),
        *(f"{name}_null_keys" for name in ("map", "map_of_texts", "map_of_lists")),
    }


def test_clients_compiled_before_these_fields(typed):
    """An older client reads lists as before, with NaN for missing numbers, and its calls are answered."""
    method = typed.method("records_predict")
    file = FileDescriptorProto()
    method.output_type.file.CopyToProto(file)
    for message in file.message_type:
        kept = DescriptorProto()
        kept.CopyFrom(message)
        del message.field[:]
        message.field.extend(field for field in kept.field if field.number < 200_000)
    pool = DescriptorPool()
    for dependency in method.output_type.file.dependencies:
        pool.AddSerializedFile(dependency.serialized_pb)
    pool.Add(file)
    older: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName(method.output_type.full_name))

    def ask(name: str, index: int) -> Any:
        answer = typed("records_predict", {"name": name, "place": str(index)})
        return older.FromString(answer.SerializeToString())

    first, second = ask("doubles", 0).doubles
    assert (first, math.isnan(second)) == (1.0, True)
    assert list(ask("texts", 0).texts) == ["a", "", ""]
    assert dict(ask("map", 1).map) == {"x": 1.5}
    assert [(person.a, person.b) for person in ask("people", 0).people] == [(1.5, "text"), (0, ""), (2.5, "")]
