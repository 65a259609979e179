"""MLflow's refusals of a message use the names in the message, and its row."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import mlflow
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import oracle_of
from tests.parity.test_typed import in_any_order
from tests.support import zoo
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, plain

DEEP = Object([Property("z", DataType.string), Property("w", DataType.string, required=False)])
PART_TYPE = Object(
    [
        Property("x", DataType.long),
        Property("y", DataType.double, required=False),
        Property("deep", DEEP, required=False),
        Property("all", Array(DEEP), required=False),
        Property("by", Map(DEEP), required=False),
    ]
)
SCHEMAS = {
    "named": Schema(
        [
            ColSpec(DataType.long, "a b"),
            ColSpec(PART_TYPE, "object", required=False),
            ColSpec(DataType.datetime, "when", required=False),
            ColSpec(DataType.long, "maybe", required=False),
        ]
    ),
    "unnamed": Schema([ColSpec(DataType.long), ColSpec(DataType.datetime)]),
    "unnamed_one": Schema([ColSpec(DataType.datetime)]),
    "tensor": Schema([TensorSpec(np.dtype("uint8"), (-1, 2))]),
    "tensors": Schema([TensorSpec(np.dtype("uint8"), (-1, 2), "a"), TensorSpec(np.dtype("uint8"), (-1,), "b")]),
}
LATE, EARLY = "2020-01-01T00:00:00Z", "1500-01-01T00:00:00Z"
MISSING = "missing, and the model needs it"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Callable[[str], Any], TypedCaller]]:
    """MLflow's answers by model, and typed RPCs."""
    folder = tmp_path_factory.mktemp("refusals")
    for name, schema in SCHEMAS.items():
        signature = ModelSignature(schema)
        mlflow.pyfunc.save_model(
            folder / name, python_model=zoo.EchoRows(), signature=signature, pip_requirements=["mlflow"]
        )
    configs = [ModelConfig(uri=str(folder / name), name=name, endpoint=True) for name in SCHEMAS]
    with serving_models([(config, None) for config in configs]) as running, Caller(running.address) as call:
        yield functools.cache(lambda name: oracle_of(folder / name)), TypedCaller(call.channel)


def refusal(typed: TypedCaller, method: str, message: Any) -> dict[str, str]:
    """Returns the description of each field in an INVALID_ARGUMENT, whose message repeats them."""
    with pytest.raises(grpc.RpcError) as caught:
        typed(method, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    details = caught.value.details() or ""
    assert not any(format_ in details for format_ in ("dataframe", "inputs", "payload"))
    return {violation.field: violation.description for violation in bad.field_violations}


@pytest.mark.parametrize(
    ("method", "fields", "absent"),
    [
        ("named_predict", {}, ["a b"]),
        ("named_predict", {"a_b": 1, "object": {"y": 1.0}}, ["object.x"]),
        ("named_predict", {"a_b": 1, "object": {"x": 1, "deep": {"w": ""}}}, ["object.deep.z"]),
        (
            "named_predict",
            {"a_b": 1, "object": {"x": 1, "all": {"values": [{"z": ""}, {"w": ""}]}}},
            ["object.all[1].z"],
        ),
        ("named_predict", {"a_b": 1, "object": {"x": 1, "by": {"values": {"k": {"w": ""}}}}}, ["object.by.k.z"]),
        ("named_predict_batch", {"a_b": [1, 2, 3], "object": [{"x": 1}, {"x": 2}, {"y": 1.0}]}, ["[2].object.x"]),
        (
            "named_predict_batch",
            {"a_b": [1, 2], "object": [{"x": 1}, {"x": 2, "deep": {"w": ""}}]},
            ["[1].object.deep.z"],
        ),
        ("unnamed_predict", {}, ["column_0", "column_1"]),
        ("unnamed_predict", {"column_0": 1}, ["column_1"]),
        ("unnamed_one_predict", {}, ["value"]),
        ("tensor_predict", {}, ["value"]),
        ("tensors_predict", {"b": 1}, ["a"]),
    ],
)
def test_missing_fields(served, method, fields, absent):
    """A missing field has its name in the model, or that in the message if it has none."""
    assert refusal(served[1], method, fields) == dict.fromkeys(absent, MISSING)


@pytest.mark.parametrize(
    ("method", "fields", "at_fault"),
    [
        ("named_predict_batch", {"a_b": [1, 2], "maybe": [1]}, {"maybe": "has 1 rows"}),
        ("named_predict_batch", {"when": [LATE]}, {"a b": "has 0 rows"}),
        ("unnamed_predict_batch", {"column_0": [1, 2]}, {"column_1": "has 0 rows"}),
        ("unnamed_predict_batch", {}, {"column_0": "has no rows", "column_1": "has no rows"}),
    ],
)
def test_inconsistent_columns(served, method, fields, at_fault):
    """Errors for columns use the same names as for one record."""
    assert refusal(served[1], method, fields) == at_fault


@pytest.mark.parametrize(
    ("method", "fields", "field", "text"),
    [
        ("named_predict", {"a_b": 1, "when": EARLY}, "when", "must be a datetime between 1677 and 2262"),
        ("named_predict_batch", {"a_b": [1] * 9, "when": [LATE] * 6 + [EARLY] * 3}, "[6].when", "must be a datetime"),
        ("named_predict_batch", {"a_b": [1, 2, 3], "maybe": [1, 2, 3], "maybe_nulls": [1]}, "[1].maybe", "is null"),
        ("unnamed_predict", {"column_0": 1, "column_1": EARLY}, "column_1", "must be a datetime"),
        (
            "unnamed_predict_batch",
            {"column_0": [1, 2], "column_1": [LATE, EARLY]},
            "[1].column_1",
            "must be a datetime",
        ),
        ("unnamed_one_predict", {"value": EARLY}, "value", "must be a datetime"),
        ("unnamed_one_predict_batch", {"value": [EARLY, LATE]}, "[0].value", "must be a datetime"),
        ("tensor_predict", {"value": {"data": [1, 300]}}, "value", "a tensor of uint8, of the shape [-1, 2]"),
        ("tensor_predict_batch", {"value": {"data": [1, 2, 3, 300]}}, "[1].value", "a tensor of uint8"),
        ("tensors_predict_batch", {"a": {"data": [1, 2, 3, 4]}, "b": [1, 300]}, "[1].b", "a tensor of uint8"),
    ],
)
def test_values_that_do_not_fit(served, method, fields, field, text):
    """The error names the column, and in a batch the first row that MLflow refuses by itself."""
    violations = refusal(served[1], method, fields)
    assert list(violations) == [field]
    assert text in violations[field]


@pytest.mark.parametrize(
    ("method", "fields", "where"),
    [
        ("named_predict", {"a_b": 1, "object": {"x": 1}}, ["object"]),
        ("named_predict", {"a_b": 1, "object": {"x": 1, "deep": {"z": ""}}}, ["object", "deep"]),
        ("named_predict_batch", {"a_b": [1, 2], "object": [{"x": 1}, {"x": 2}]}, ["object", 1]),
    ],
)
def test_unknown_fields_of_an_object(served, method, fields, where):
    """MLflow refuses unknown properties of an object, so a message with such a field is refused too."""
    oracle, typed = served
    payload = {"dataframe_records": [{"a b": 1, "object": {"x": 1, "more": 2}}]}
    assert oracle("named")(json.dumps(payload), "application/json")[0] == 400
    message = typed.input(method, fields)
    target = message
    for step in where:
        target = target[step] if isinstance(step, int) else getattr(target, step)
    target.MergeFromString(b"\xf8\x06\x01")  # Field 111.
    path = ".".join(str(step) for step in where) if method == "named_predict" else "[1].object"
    assert refusal(typed, method, message) == {f"{path}.111": "the model has no such field"}


def test_unknown_fields_of_the_model(served):
    """MLflow drops unknown columns, so a message with such a field is accepted too."""
    oracle, typed = served
    payload = {"dataframe_records": [{"a b": 1, "more": 2}]}
    assert oracle("named")(json.dumps(payload), "application/json")[0] == 200
    for method, fields in (("named_predict", {"a_b": 1}), ("named_predict_batch", {"a_b": [1, 2]})):
        message = typed.input(method, fields)
        message.MergeFromString(b"\xf8\x06\x01")  # Field 111.
        assert typed.outcome(method, message)[0] == "OK"


@pytest.mark.parametrize(
    ("json_object", "fields"),
    [
        ({}, {}),
        ({"x": 1, "deep": {}}, {"x": 1, "deep": {}}),
        ({"x": 1, "all": [{}, {"z": ""}]}, {"x": 1, "all": {"values": [{}, {"z": ""}]}}),
        ({"x": 1, "by": {"k": {}}}, {"x": 1, "by": {"values": {"k": {}}}}),
    ],
)
def test_an_empty_optional_object(served, json_object, fields):
    """MLflow accepts an optional object without its required properties, so it is passed to the model in this form."""
    oracle, typed = served
    status, answer = oracle("named")(
        json.dumps({"dataframe_records": [{"a b": 1, "object": json_object}]}), "application/json"
    )
    assert status == 200, answer
    expected = in_any_order(json.loads(answer)["predictions"][0])
    assert in_any_order(plain(typed("named_predict", {"a_b": 1, "object": fields}))["prediction"]) == expected
    (row,) = plain(typed("named_predict_batch", {"a_b": [1], "object": [fields]}))["prediction"]
    assert in_any_order(row) == expected
