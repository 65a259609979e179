"""Typed RPCs answer everything that MLflow's server writes as JSON, with the same values."""

import base64
import collections
import datetime
import enum
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pydantic
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.payload.mlflow_json.predictions import Predictions
from tests.parity.conftest import oracle_of
from tests.support.depth import sample
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Label(pydantic.BaseModel):
    label: str
    score: float


class Event(pydantic.BaseModel):
    at: datetime.datetime
    labels: list[Label] = []


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = collections.namedtuple("Point", ["x", "y"])  # noqa: PYI024 - one that says no types
UTC = datetime.UTC
LABEL = Object([Property("label", DataType.string), Property("score", DataType.double)])
EVENT = Object([Property("at", DataType.datetime), Property("labels", Array(LABEL))])
NAMED = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")])
ANYTHING = {
    "date": datetime.date(2020, 1, 2), "time": datetime.time(1, 2, 3), "moment": datetime.datetime(2020, 1, 2, tzinfo=UTC),
    "timestamp": pd.Timestamp("2020-01-02T03:04:05.123456789"), "bytes": b"\xff\x00" * 60, "bytearray": bytearray(b"a"),
    "float32": np.float32(0.1), "flag": np.bool_(True), "text": np.str_("x"), "raw": np.bytes_(b"a"),
    "array": np.array([[1, 2]]), "no dimension": np.array(3), "objects": np.array([b"a", datetime.date(2020, 1, 2), None], object),
    "day": np.datetime64("2020-01-02"), "days": np.array(["2020-01-02"], "M8[D]"), "tuple": (1, (2,)), "named": Point(1, 2.5),
    "ordered": collections.OrderedDict(b=1, a=2), "word": Color.RED, "number": Level.HIGH, 7: "key", "none": None,
    "event": Event(at=datetime.datetime(2020, 1, 2, tzinfo=UTC), labels=[Label(label="a", score=0.5)]),
    "infinity": float("-inf"), "structured": np.array([(1, 0.5)], [("a", "i8"), ("b", "f8")]),
    "masked": np.ma.array([1, 2], mask=[True, False]),
}  # fmt: skip


def columns(*kinds: Any) -> Schema:
    return Schema([ColSpec(data_type) for data_type in kinds])


def column(data_type: Any, name: str) -> Schema:
    return Schema([ColSpec(data_type, name)])


def tensor(dtype: str, *shape: int, name: str | None = None) -> Schema:
    return Schema([TensorSpec(np.dtype(dtype), shape, name)])


COLUMN_OF_ANYTHING = "dict of lists with anything among them"

ANSWERS: dict[str, tuple[Schema | None, Callable[[int], Any]]] = {
    "pydantic": (NAMED, lambda n: [Label(label="a", score=0.5)] * n),
    "pydantic without a schema": (None, lambda n: [Label(label="a", score=0.5)] * n),
    "pydantic in an object": (column(LABEL, "best"), lambda n: [{"best": Label(label="a", score=0.5)}] * n),
    "pydantic for an object": (columns(LABEL), lambda n: [Label(label="a", score=0.5)] * n),
    "pydantic in a frame": (column(LABEL, "best"), lambda n: pd.DataFrame({"best": [Label(label="a", score=0.5)] * n})),
    "pydantic in a list": (column(Array(LABEL), "all"), lambda n: [{"all": [Label(label="a", score=0.5)] * 2}] * n),
    "pydantic in a map": (column(Map(LABEL), "by"), lambda n: [{"by": {"k": Label(label="a", score=0.5)}}] * n),
    "pydantic in pydantic": (columns(EVENT), lambda n: [Event(at=datetime.datetime(2020, 1, 2), labels=[])] * n),
    "squeezed": (tensor("f8", -1), lambda n: np.squeeze(np.full((n, 1), 0.5))),
    "squeezed from a column": (tensor("f8", -1, 1), lambda n: np.squeeze(np.full((n, 1), 0.5))),
    "squeezed to a row": (tensor("f8", -1, 3), lambda n: np.squeeze(np.arange(3.0 * n).reshape(n, 3))),
    "squeezed, of columns": (columns(DataType.double), lambda n: np.squeeze(np.full((n, 1), 0.5))),
    "squeezed text": (columns(DataType.string), lambda n: np.squeeze(np.full((n, 1), "x", object))),
    "frame for a matrix": (tensor("f4", -1, 2), lambda n: pd.DataFrame(np.full((n, 2), 0.1, "f4"))),
    "frame for a column": (tensor("f4", -1, 1), lambda n: pd.DataFrame(np.full((n, 1), 0.1, "f4"))),
    "frame for numbers": (tensor("f4", -1), lambda n: pd.DataFrame(np.full((n, 1), 0.1, "f4"))),
    "frame for a named tensor": (tensor("f4", -1, 2, name="out"), lambda n: pd.DataFrame(np.full((n, 2), 0.1, "f4"))),
    "frame of lists": (tensor("f8", -1, 2), lambda n: pd.DataFrame({"out": [[0.5, 1.5]] * n})),
    "frame of two types": (tensor("f8", -1, 2), lambda n: pd.DataFrame({"a": [1] * n, "b": [0.5] * n})),
    "frame with any labels": (tensor("i8", -1, 2), lambda n: pd.DataFrame([[1, 2]] * n, columns=["b", "c"], index=[7] * n)),
    "series for numbers": (tensor("f8", -1), lambda n: pd.Series([0.5] * n, name="x")),
    "series for a column": (tensor("f8", -1, 1), lambda n: pd.Series([0.5] * n)),
    "dict of lists": (NAMED, lambda n: {"label": ["a"] * n, "score": [0.5] * n}),
    "dict of tuples": (NAMED, lambda n: {"label": ("a",) * n, "score": (0.5,) * n}),
    "dict of both": (NAMED, lambda n: {"label": ["a"] * n, "score": np.full(n, 0.5)}),
    COLUMN_OF_ANYTHING: (
        Schema([ColSpec(DataType.long, "number"), ColSpec(AnyType(), "more")]),
        lambda n: {"number": [1] * n, "more": [{"a": [1, "b"]}] * n},
    ),
    "labels that the signature does not have": (
        columns(DataType.string, LABEL),
        lambda n: pd.DataFrame({"a": ["a"] * n, "best": [{"label": "a", "score": 0.5}] * n}),
    ),
    "series of anything": (column(AnyType(), "all"), lambda n: pd.Series([{"all": 1}] * n, name="all")),
    "dict of lists of lists": (
        Schema([ColSpec(Array(DataType.double), "all"), ColSpec(DataType.double, "best")]),
        lambda n: {"all": [[0.5, 1.5]] * n, "best": [1.5] * n},
    ),
    "dict of tensors as lists": (
        Schema([TensorSpec(np.dtype("f8"), (-1, 2), "a"), TensorSpec(np.dtype("f8"), (-1,), "b")]),
        lambda n: {"a": [[0.5, 1.5]] * n, "b": [2.5] * n},
    ),
    "dict of one array": (tensor("f8", -1), lambda n: {"out": np.full(n, 0.5)}),
    "dict of one matrix": (tensor("f8", -1, 2), lambda n: {"out": np.full((n, 2), 0.5)}),
    "dict of one list": (columns(DataType.string), lambda n: {"label": ["a"] * n}),
    "dicts of one value": (columns(DataType.double), lambda n: [{"score": 0.5}] * n),
    "labels that are numbers": (
        Schema([ColSpec(DataType.string, "0"), ColSpec(DataType.double, "1")]),
        lambda n: [{0: "a", 1: 0.5}] * n,
    ),
    "frame whose only label is 0": (column(DataType.double, cast("str", 0)), lambda n: pd.DataFrame([[0.5]] * n)),
    "columns whose labels are numbers": (
        Schema([ColSpec(DataType.string, "0"), ColSpec(DataType.double, "1")]),
        lambda n: {0: ["a"] * n, 1: [0.5] * n},
    ),
    "tuple": (columns(DataType.double), lambda n: (0.5,) * n),
    "tuples": (columns(DataType.string, DataType.double), lambda n: [("a", 0.5)] * n),
    "named tuples": (columns(DataType.long, DataType.double), lambda n: [Point(1, 0.5)] * n),
    "structured": (columns(DataType.long, DataType.double), lambda n: np.array([(1, 0.5)] * n, [("a", "i8"), ("b", "f8")])),
    "masked": (columns(DataType.double), lambda n: np.ma.array([0.5] * n, mask=[True] + [False] * (n - 1))),
    "matrix": (tensor("f8", -1, 2), lambda n: np.asmatrix(np.full((n, 2), 0.5))),
    "arrays without a dimension": (columns(DataType.double), lambda n: [np.array(0.5)] * n),
    "texts of points in time": (
        columns(DataType.string, DataType.string, DataType.string),
        lambda n: [[datetime.datetime(2020, 1, 2, tzinfo=UTC), datetime.date(2020, 1, 2), datetime.time(1, 2)]] * n,
    ),
    "dates": (columns(DataType.datetime), lambda n: [datetime.date(2020, 1, 2)] * n),
    "the first second": (columns(DataType.datetime), lambda n: pd.DataFrame({"a": [pd.Timestamp.min] * n})),
    "the first second, in dicts": (column(DataType.datetime, "at"), lambda n: [{"at": pd.Timestamp.min}] * n),
    "days in a list": (column(Array(DataType.datetime), "at"), lambda n: [{"at": np.array(["2020-01-02"], "M8[D]")}] * n),
    "anything": (None, lambda n: [ANYTHING] * n),
    "anything in an object": (
        columns(Object([Property("x", AnyType())])),
        lambda n: [{"x": [ANYTHING]}] * n,
    ),
}  # fmt: skip

UNNAMED = columns(DataType.string, Array(DataType.double), Map(DataType.long), LABEL, AnyType())
ROW = {"a": "x", "b": [0.5, 1.5], "c": {"k": 1}, "d": {"label": "y", "score": 0.5}, "e": {"more": [1, None]}}


def cells(*values: Any) -> np.ndarray:
    """Makes a column of arbitrary values; lists are kept as values."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


ANSWERS |= {
    "dicts, unnamed": (UNNAMED, lambda n: [ROW] * n),
    "dicts by numbers, unnamed": (UNNAMED, lambda n: [dict(enumerate(ROW.values()))] * n),
    "dict of lists, unnamed": (UNNAMED, lambda n: {name: [value] * n for name, value in ROW.items()}),
    "dict of arrays, unnamed": (UNNAMED, lambda n: {name: cells(*[value] * n) for name, value in ROW.items()}),
    "frame, unnamed": (UNNAMED, lambda n: pd.DataFrame({name: [value] * n for name, value in ROW.items()})),
    "lists, unnamed": (UNNAMED, lambda n: [list(ROW.values())] * n),
    "pydantic, unnamed": (columns(DataType.string, DataType.double), lambda n: [Label(label="a", score=0.5)] * n),
    "names of fields": (
        columns(DataType.long, DataType.long),
        lambda n: [{"column_0": index, "column_1": -index} for index in range(n)],
    ),
    "numbers for names": (NAMED, lambda n: [{0: "a", 1: 0.5}] * n),
    "columns with numbers for names": (NAMED, lambda n: {0: ["a"] * n, 1: [0.5] * n}),
    "frame of maps": (columns(Map(DataType.long)), lambda n: pd.DataFrame({"a": [{"k": 1, "l": 2}] * n})),
    "frame of maps of maps": (columns(Map(Map(DataType.long))), lambda n: pd.DataFrame({"a": [{"k": {"l": 2}}] * n})),
    "frame that is a map of maps": (columns(Map(Map(DataType.long))), lambda n: pd.DataFrame({"a": [{"k": 1}] * n})),
    "frame that is a map": (columns(Map(DataType.long)), lambda n: pd.DataFrame({"a": [1] * n, "b": [2] * n})),
    "frame of objects": (columns(LABEL), lambda n: pd.DataFrame({"a": [{"label": "y", "score": 0.5}] * n})),
    "frame that is an object": (columns(LABEL), lambda n: pd.DataFrame({"label": ["y"] * n, "score": [0.5] * n})),
    "dicts of one map": (columns(Map(DataType.long)), lambda n: [{"a": {"k": 1, "l": 2}}] * n),
    "dict of maps": (columns(Map(DataType.long)), lambda n: {"a": [{"k": 1, "l": 2}] * n}),
    "dict of objects": (columns(LABEL), lambda n: {"a": [Label(label="y", score=0.5)] * n}),
    "dicts of one list": (columns(Array(DataType.double)), lambda n: [{"a": [0.5, 1.5]}] * n),
    "lists of one list": (columns(Array(DataType.double)), lambda n: [[[0.5, 1.5]]] * n),
    "lists of one map": (columns(Map(DataType.long)), lambda n: [[{"k": 1}]] * n),
}

ONE_RECORD: dict[str, tuple[Schema | None, Callable[[int], Any]]] = {
    "one object": (NAMED, lambda n: Label(label="a", score=0.5)),
    "one dict": (NAMED, lambda n: {"label": "a", "score": np.array(0.5)}),
    "one dict with a list": (column(Array(DataType.double), "all"), lambda n: {"all": [0.5]}),
    "one dict with an array": (column(Array(DataType.double), "all"), lambda n: {"all": np.array([0.5, 1.5])}),
    "one list": (columns(Array(DataType.double)), lambda n: [0.5, 1.5]),
    "one empty list": (columns(Array(DataType.double)), lambda n: []),
    "one row": (columns(DataType.string, DataType.double), lambda n: ["a", 0.5]),
    "one number": (columns(DataType.double), lambda n: 0.5),
    "one number of numpy's": (None, lambda n: np.array(0.5)),
    "one text": (None, lambda n: "x"),
    "any list": (None, lambda n: ["a", "b", "c"]),
    "one dict, unnamed": (UNNAMED, lambda n: ROW),
    "one list, unnamed": (UNNAMED, lambda n: list(ROW.values())),
    "one list with a dict": (
        Schema([ColSpec(DataType.string, "a"), ColSpec(LABEL, "b")]),
        lambda n: ["x", {"label": "y", "score": 0.5}],
    ),
    "one dict of a map": (columns(Map(DataType.long)), lambda n: {"a": {"k": 1, "l": 2}}),
}
"""Answers without rows, which are for one record only."""

TESTED = dict.fromkeys([*sample(ANSWERS, share=3), COLUMN_OF_ANYTHING, "anything", "masked"])
TESTED_RECORDS = sample(ONE_RECORD, share=3)
"""Names of the answers that this run tests. Neighbours in the lists are forms of the same answer."""


class Answers(PythonModel):
    """Returns an answer for the number of rows in its input."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer

    def predict(self, context, model_input, params=None):
        return self.answer(len(model_input))


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Callable[[str], tuple[Any, TypedCaller, str]]]:
    """MLflow's own answers of a model, its typed RPCs and their prefix."""
    folder = tmp_path_factory.mktemp("answers")
    cases = {name: {**ANSWERS, **ONE_RECORD}[name] for name in (*TESTED, *TESTED_RECORDS)}
    labels = {name: f"m{index}" for index, name in enumerate(cases)}
    for name, (schema, answer) in cases.items():
        signature = ModelSignature(column(DataType.long, "row"), schema)
        path = folder / labels[name]
        mlflow.pyfunc.save_model(path, python_model=Answers(answer), signature=signature, pip_requirements=["mlflow"])
    configs = [ModelConfig(uri=str(folder / label), name=label, endpoint=True) for label in labels.values()]
    with serving_models([(config, None) for config in configs]) as running, Caller(running.address) as call:
        typed = TypedCaller(call.channel)
        oracle = functools.cache(oracle_of)
        yield lambda name: (oracle(folder / labels[name]), typed, labels[name])


def in_json(oracle: Any, rows: int) -> Any:
    status, text = oracle(json.dumps({"inputs": {"row": list(range(rows))}}), "application/json")
    assert status == 200, text
    return json.loads(text)["predictions"]


def leaves(value: Any) -> list[Any]:
    """Returns the scalars in a JSON value, with objects in the order of their keys, inside up to two lists."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [] if value is None else [repr(float(value)) if type(value) is int else repr(value)]


def as_json(value: Any) -> Any:
    """Returns the content of a message as MLflow's server would write it."""
    if isinstance(value, bytes):
        return base64.encodebytes(value).decode()
    if isinstance(value, str | int | float):
        return value
    if hasattr(value, "DESCRIPTOR"):
        return of_message(value)
    if hasattr(value, "items"):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value]


def of_message(message: Any) -> Any:
    fields = {field.name: value for field, value in message.ListFields()}
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.Timestamp":
            return pd.Timestamp(message.seconds * 10**9 + message.nanos).isoformat()
        case "google.protobuf.Value":
            ((field_name, value),) = fields.items()
            return None if field_name == "null_value" else as_json(value)
        case "google.protobuf.Struct":
            return as_json(fields.get("fields", {}))
        case "google.protobuf.ListValue":
            return as_json(fields.get("values", []))
        case _:
            is_tensor = "shape" in message.DESCRIPTOR.fields_by_name
            return list(message.data) if is_tensor else as_json(fields)


def texts_of_times(leaves: list[Any]) -> list[Any]:
    """Adds the midnights of dates, which are times if the schema says so."""
    return [
        f"{leaf[:-1]}T00:00:00'" if isinstance(leaf, str) and len(leaf) == 12 and leaf[5] == "-" else leaf
        for leaf in leaves
    ]


@pytest.mark.parametrize("name", [*TESTED, *TESTED_RECORDS])
def test_the_answer_to_one_record(served, name):
    """A single record, and the only row of a batch, have the values of MLflow's JSON."""
    oracle, typed, label = served(name)
    expected = texts_of_times(leaves(in_json(oracle, 1)))
    assert expected or name in ("one empty list", "masked")
    assert texts_of_times(leaves(as_json(typed(f"{label}_predict", {"row": 0})))) == expected
    together = as_json(typed(f"{label}_predict_batch", {"row": [0]}))
    columns = {key: value for key, value in together.items() if not key.endswith("_nulls")}
    assert texts_of_times(leaves(columns if name != "masked" else {})) == expected


@pytest.mark.parametrize("name", TESTED)
def test_the_answers_to_rows(served, name):
    """Each column has the values of MLflow's JSON, row by row."""
    oracle, typed, label = served(name)
    expected_rows = in_json(oracle, 2)
    rows = (
        [dict(zip(expected_rows, row, strict=True)) for row in zip(*expected_rows.values(), strict=True)]
        if isinstance(expected_rows, dict)
        else expected_rows
    )
    message = typed(f"{label}_predict_batch", {"row": [0, 1]})
    together = as_json(message)
    nulls = {key.removesuffix("_nulls"): set(value) for key, value in together.items() if key.endswith("_nulls")}
    taken = [
        {
            key: values[index * len(values) // 2 : (index + 1) * len(values) // 2]
            for key, values in together.items()
            if not key.endswith("_nulls") and index not in nulls.get(key, ())
        }
        for index in range(2)
    ]
    assert [texts_of_times(leaves(row)) for row in taken] == [texts_of_times(leaves(row)) for row in rows]


def test_columns_with_one_row_are_columns(served):
    """A list with one value is a column of one row if the columns beside it are."""
    oracle, typed, label = served(COLUMN_OF_ANYTHING)
    assert in_json(oracle, 1)["more"] == in_json(oracle, 2)["more"][:1]
    first = typed(f"{label}_predict_batch", {"row": [0, 1]}).more[0]
    assert as_json(first) == in_json(oracle, 2)["more"][0]
    assert typed(f"{label}_predict_batch", {"row": [0]}).more[0] == first
    assert typed(f"{label}_predict", {"row": 0}).more == first


def test_unnamed_columns_have_the_order_of_the_first_row():
    """Labels match values to columns in later rows; names of fields take precedence over positions."""
    unnamed = Predictions(columns(DataType.long, DataType.long))
    assert unnamed.rows([{"b": 1, "a": 2}, {"a": 4, "b": 3}], 2) == [[1, 2], [3, 4]]
    assert unnamed.rows({"b": [1, 3], "a": [2, 4]}, 2) == [[1, 2], [3, 4]]
    assert unnamed.rows([{"column_1": 2, "column_0": 1}], 1) == [[1, 2]]
    assert unnamed.rows([{"b": 1, "a": 2}, {"b": 3, "c": 4}], 2) == [[1, 2], {"b": 3, "c": 4}]


def test_missing_maps_in_a_frame():
    """NaN in a column of maps is null, as in columns of other types."""
    frame = pd.DataFrame({"a": [{"k": 1}, None, math.nan]})
    assert Predictions(columns(Map(DataType.long))).rows(frame, 3) == [{"k": 1}, None, None]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (column(AnyType(), "all"), {}),
        (
            Schema([ColSpec(Array(DataType.double), "all"), ColSpec(DataType.double, "best", required=False)]),
            [0.5, 1.5],
        ),
    ],
)
def test_a_series_with_the_name_of_an_output(tmp_path, schema, value):
    """A Series with an output's name has values of that output; a dictionary or list in it is not a row."""
    signature = ModelSignature(column(DataType.long, "row"), schema)
    answer = Answers(lambda n: pd.Series([value] * n, name="all"))
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=answer, signature=signature, pip_requirements=["mlflow"])
    assert Predictions(schema).rows(answer.answer(2), 2) == in_json(oracle_of(tmp_path / "m"), 2)


@pytest.mark.parametrize("answer", [{1, 2}, 1 + 2j, object()])
def test_outputs_that_mlflow_cannot_write(tmp_path, answer):
    """An output that MLflow cannot write is INTERNAL."""
    signature = ModelSignature(column(DataType.long, "row"), columns(DataType.long))
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=Answers(lambda n: answer), signature=signature, pip_requirements=["mlflow"]
    )
    with (
        serving_models([(ModelConfig(uri=str(tmp_path / "m"), name="m", endpoint=True), None)]) as running,
        Caller(running.address) as call,
    ):
        status, text = oracle_of(tmp_path / "m")(json.dumps({"inputs": {"row": [0]}}), "application/json")
        assert (status, text) == (500, "Internal Server Error")
        assert TypedCaller(call.channel).outcome("m_predict", {"row": 0})[0] == "INTERNAL"
