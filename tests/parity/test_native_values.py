"""Numbers of 32 bits and times within lists, objects and maps, which MLflow refuses in every JSON form.

MLflow accepts them as numpy values from callers of `predict` in the same process. The model gets the same from a
message.
"""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object, Property

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import oracle_of
from tests.parity.test_typed import in_any_order
from tests.support import zoo
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, plain

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ISO, MOMENT = "2020-02-29T12:00:00.123456789", np.datetime64("2020-02-29T12:00:00.123456789", "ns")
RECORD = Object(
    [
        Property("at", DataType.datetime),
        Property("small", DataType.integer, required=False),
        Property("all", Array(DataType.float), required=False),
    ]
)
COLUMNS: dict[str, tuple[Any, Any, Any, Any]] = {
    "integers": (Array(DataType.integer), {"values": [1, -(2**31)]}, [1, -(2**31)], np.array([1, -(2**31)], "i4")),
    "floats": (Array(DataType.float), {"values": [0.5, 0.1]}, [0.5, 0.1], np.array([0.5, 0.1], "f4")),
    "moments": (Array(DataType.datetime), {"values": [f"{ISO}Z"]}, [ISO], np.array([MOMENT])),
    "nested": (
        Array(Array(DataType.datetime)),
        {"values": [{"values": [f"{ISO}Z"]}, {}]},
        [[ISO], []],
        [np.array([MOMENT]), []],
    ),
    "map": (Map(DataType.datetime), {"values": {"k": f"{ISO}Z"}}, {"k": ISO}, {"k": MOMENT}),
    "map_of_integers": (Map(DataType.integer), {"values": {"k": 7}}, {"k": 7}, {"k": np.int32(7)}),
    "object": (
        RECORD,
        {"at": f"{ISO}Z", "small": 7, "all": {"values": [0.5]}},
        {"at": ISO, "small": 7, "all": [0.5]},
        {"at": MOMENT, "small": np.int32(7), "all": np.array([0.5], "f4")},
    ),
    "objects": (
        Array(RECORD),
        {"values": [{"at": f"{ISO}Z"}, {"at": f"{ISO}Z", "small": 0}]},
        [{"at": ISO}, {"at": ISO, "small": 0}],
        [{"at": MOMENT}, {"at": MOMENT, "small": np.int32(0)}],
    ),
}
"""Type, value in protobuf's JSON, value in JSON and numpy value, by name."""


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Path, TypedCaller]]:
    """A model with all of these columns, all optional, that returns a description of its input."""
    path = tmp_path_factory.mktemp("native") / "m"
    specs = [ColSpec(data_type, name, required=False) for name, (data_type, *_) in COLUMNS.items()]
    signature = ModelSignature(Schema([ColSpec(DataType.long, "row"), *specs]))
    mlflow.pyfunc.save_model(path, python_model=zoo.EchoRows(), signature=signature, pip_requirements=["mlflow"])
    with (
        serving_models([(ModelConfig(uri=str(path), name="m", endpoint=True), None)]) as running,
        Caller(running.address) as call,
    ):
        yield path, TypedCaller(call.channel)


def echoed_rows(path: Path, rows: list[dict[str, Any]]) -> list[Any]:
    """Returns the model's description of the input that MLflow passed for a frame."""
    model = mlflow.pyfunc.load_model(str(path))
    # MLflow changes dictionaries in place, so no two rows may share one.
    return [in_any_order(row) for row in model.predict(pd.DataFrame([copy.deepcopy(row) for row in rows]))]


@pytest.mark.parametrize("name", COLUMNS)
def test_native_values_reach_the_model(served, name):
    """The input from messages equals that from numpy values, alone and in rows. MLflow refuses the same as JSON, in a
    record and in a column."""
    path, typed = served
    _, field, as_json, value = COLUMNS[name]
    for payload in ({"dataframe_records": [{"row": 1, name: as_json}]}, {"inputs": [{"row": 1, name: as_json}]}):
        assert oracle_of(path)(json.dumps(payload), "application/json")[0] == 400
    (alone,) = echoed_rows(path, [{"row": 1, name: value}])
    assert in_any_order(plain(typed("m_predict", {"row": 1, name: field}))["prediction"]) == alone
    together = plain(typed("m_predict_batch", {"row": [1, 1], name: [field, field]}))["prediction"]
    assert [in_any_order(row) for row in together] == echoed_rows(path, [{"row": 1, name: value}] * 2)


def test_empty_values_are_those_of_json(served):
    """MLflow accepts an empty list in JSON, so it is not converted."""
    path, typed = served
    status, answer = oracle_of(path)(json.dumps({"dataframe_records": [{"row": 1, "moments": []}]}), "application/json")
    assert status == 200
    (expected,) = json.loads(answer)["predictions"]
    prediction = plain(typed("m_predict", {"row": 1, "moments": {}}))["prediction"]
    assert in_any_order(prediction) == in_any_order(expected)


def test_nulls_in_lists_of_times(served):
    """MLflow accepts a list of nulls in JSON, and messages have it too. Beside a time, a null is numpy's NaT."""
    path, typed = served
    payload = {"dataframe_records": [{"row": 1, "moments": [None, None]}]}
    status, answer = oracle_of(path)(json.dumps(payload), "application/json")
    assert status == 200
    (expected,) = json.loads(answer)["predictions"]
    epoch = "1970-01-01T00:00:00Z"
    nulls = {"values": [epoch, epoch], "values_null_items": [0, 1]}
    prediction = plain(typed("m_predict", {"row": 1, "moments": nulls}))["prediction"]
    assert in_any_order(prediction) == in_any_order(expected)
    mixed = {"values": [f"{ISO}Z", epoch], "values_null_items": [1]}
    native = {"row": 1, "moments": np.array([MOMENT, np.datetime64("NaT", "ns")])}
    prediction = plain(typed("m_predict", {"row": 1, "moments": mixed}))["prediction"]
    assert [in_any_order(prediction)] == echoed_rows(path, [native])
    together = plain(typed("m_predict_batch", {"row": [1, 1], "moments": [mixed, mixed]}))["prediction"]
    assert [in_any_order(row) for row in together] == echoed_rows(path, [native, native])


def test_times_outside_the_range_of_pandas(served):
    """The error names its column, and its row in a batch, and no other column."""
    _, typed = served
    fields = {"row": 1, "object": {"at": "1500-01-01T00:00:00Z"}, "moments": {"values": [f"{ISO}Z"]}}
    status, details = typed.outcome("m_predict", fields)
    assert (status, details) == (
        "INVALID_ARGUMENT",
        f"The record does not fit the model's signature: object: must be {RECORD}.",
    )
    rows = {"row": [1, 2], "object": [{"at": f"{ISO}Z"}, {"at": "1500-01-01T00:00:00Z"}]}
    status, details = typed.outcome("m_predict_batch", rows)
    assert (status, details) == (
        "INVALID_ARGUMENT",
        f"The record [1] does not fit the model's signature: [1].object: must be {RECORD}.",
    )
