"""Typed RPCs compared with JSON: the model gets the same input to the bit, and its output arrives unchanged."""

import base64
import datetime
import json
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.depth import examples
from tests.support.typed import TypedCaller, plain

BYTES = base64.b64encode(b"\x00\xff").decode()
EVERY = {
    "boolean": False, "integer": -(2**31), "long": 2**63 - 1, "float": 0.10000000149011612, "double": 0.1, "string": "",
    "binary": BYTES, "datetime": "2020-02-29T12:00:00.123456789Z",
}  # fmt: skip


def as_record(fields: dict[str, Any]) -> dict[str, Any]:
    """Converts protobuf's JSON of a message to a record for MLflow, whose times have no zone."""
    return {
        name: value.removesuffix("Z") if isinstance(value, str) and name.endswith("datetime") else value
        for name, value in fields.items()
    }


@pytest.fixture(scope="module")
def typed(pair):
    """The typed RPC of a model of the zoo, and JSON calls to the same server."""

    def get(name: str) -> tuple[TypedCaller, Any]:
        _, call, _ = pair(name)
        return TypedCaller(call.channel), call

    return get


def same(typed: Any, name: str, fields: dict[str, Any], payload: dict[str, Any]) -> None:
    """Checks that both calls give the model the same input, which it returns."""
    caller, call = typed(name)
    predictions = json.loads(call(json.dumps(payload)))["predictions"]
    answer = plain(caller(f"{name}_predict", fields))["prediction"]
    assert in_any_order(answer) == in_any_order(predictions[0] if isinstance(predictions, list) else predictions)


def in_any_order(prediction: Any) -> Any:
    """Returns a model's description without the order of dictionary keys, which protobuf does not keep."""
    if isinstance(prediction, list):
        return [in_any_order(item) for item in prediction]
    if isinstance(prediction, dict):
        items = {key: in_any_order(value) for key, value in prediction.items()}
        return {**items, "items": sorted(items["items"], key=str)} if prediction.get("type") == "dict" else items
    return prediction


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("numbers", {"a": 0, "b": 0.0}),
        ("numbers", {"a": -(2**63), "b": -0.0}),
        ("numbers", {"a": 2**53 + 1, "b": 5e-324}),
        ("every_column", EVERY),
        (
            "every_column",
            {**EVERY, "boolean": True, "string": "é\n\u2028", "binary": "", "float": 3.4028234663852886e38},
        ),
        ("optional", {"need": 1.5}),
        ("optional", {"need": 1.5, **{f"may_{name}": value for name, value in EVERY.items()}}),
        ("optional", {"need": 0.0, "may_integer": 0, "may_boolean": False, "may_string": "", "may_binary": ""}),
        ("one_string", {"q": "hello"}),
        ("one_boolean", {"flag": False}),
    ],
)
def test_columns(typed, name, fields):
    """All scalar types pass; zeros, False and "" are kept; an absent optional column is absent."""
    same(typed, name, fields, {"dataframe_records": [as_record(fields)]})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity(typed, value):
    """NaN and infinities are kept."""
    same(
        typed,
        "numbers",
        {"a": 1, "b": value},
        {"dataframe_records": [{"a": 1, "b": float(value.replace("inity", ""))}]},
    )


@pytest.mark.parametrize(
    ("name", "fields", "payload"),
    [
        (
            "structures",
            {"numbers": [1.0, -0.0], "person": {"age": 0, "name": "a"}, "counts": {"k": 0, "": 7}},
            {"dataframe_records": [{"numbers": [1.0, -0.0], "person": {"age": 0, "name": "a"}, "counts": {"k": 0, "": 7}}]},
        ),
        (
            "structures",
            {"numbers": [], "person": {"name": ""}, "counts": {}, "anything": {"x": [1, None, "y", True, 0.5]}},
            {
                "dataframe_records": [
                    {"numbers": [], "person": {"name": ""}, "counts": {}, "anything": {"x": [1, None, "y", True, 0.5]}}
                ]
            },
        ),
        (
            "structures",
            {"numbers": [], "person": {"name": ""}, "counts": {}, "anything": [-0.0, 0, 5e-324]},
            {"dataframe_records": [{"numbers": [], "person": {"name": ""}, "counts": {}, "anything": [-0.0, 0, 5e-324]}]},
        ),
        (
            "nested",
            {"words": [{"values": ["a", ""]}, {}], "people": {"values": [{"name": "x"}]}},
            {"dataframe_records": [{"words": [["a", ""], []], "people": [{"name": "x"}]}]},
        ),
        ("nested", {"words": []}, {"dataframe_records": [{"words": []}]}),
        ("nested", {"words": [], "people": {}}, {"dataframe_records": [{"words": [], "people": []}]}),
        ("tensor", {"value": {"data": [1.5, -2.25], "shape": [2]}}, {"inputs": [[1.5, -2.25]]}),
        ("tensor", {"value": {"data": [1.5, -2.25]}}, {"inputs": [[1.5, -2.25]]}),
        ("tensor_ints", {"value": 255}, {"inputs": [255]}),
        ("tensors", {"x": {"data": [1, 2]}, "mask": 3}, {"inputs": {"x": [[1.0, 2.0]], "mask": [3]}}),
        ("unnamed_one", {"value": 2.5}, {"inputs": [2.5]}),
        ("unnamed", {"column_0": 1, "column_1": 2.5}, {"dataframe_split": {"data": [[1, 2.5]]}}),
        ("params", {"a": 1.0}, {"dataframe_records": [{"a": 1.0}]}),
        (
            "params",
            {"a": 1.0, "params": {"temperature": 0.0, "flag": False, "label": "", "top_k": 0}},
            {"dataframe_records": [{"a": 1.0}], "params": {"temperature": 0.0, "flag": False, "label": "", "top_k": 0}},
        ),
        (
            "params",
            {"a": 1.0, "params": {"weights": {"values": [1.5]}, "stops": {"values": ["x", "y"]}}},
            {"dataframe_records": [{"a": 1.0}], "params": {"weights": [1.5], "stops": ["x", "y"]}},
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": "hi"}]},
            {"dataframe_records": [{"messages": [{"role": "user", "content": "hi"}]}]},
        ),
        ("hint_str", {"value": "a"}, {"inputs": ["a"]}),
        ("hint_int", {"value": 3}, {"inputs": [3]}),
        ("hint_float", {"value": 0.5}, {"inputs": [0.5]}),
        ("hint_dict", {"value": {"k": 3}}, {"inputs": [{"k": 3}]}),
    ],
)  # fmt: skip
def test_nested_types(typed, name, fields, payload):
    """Arrays, objects, maps, any value, tensors, params with defaults, and models with type hints."""
    same(typed, name, fields, payload)


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.fixed_dictionaries(
        {
            "boolean": st.booleans(),
            "integer": st.integers(-(2**31), 2**31 - 1),
            "long": st.integers(-(2**63), 2**63 - 1),
            "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
            "double": st.floats(allow_nan=False, allow_infinity=False),
            "string": st.text(st.characters(codec="utf-8")),
            "binary": st.binary().map(lambda data: base64.b64encode(data).decode()),
            "datetime": st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2260, 1, 1)).map(
                lambda moment: f"{moment.isoformat()}Z"
            ),
        }
    )
)
def test_any_values(typed, fields):
    """Arbitrary values reach the model equally in both ways."""
    same(typed, "every_column", fields, {"dataframe_records": [as_record(fields)]})


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("numbers", {"a": 1}, "b"),
        ("every_column", {name: value for name, value in EVERY.items() if name != "datetime"}, "datetime"),
        ("structures", {"numbers": [1.0], "counts": {}}, "person"),
        ("tensor", {"value": {"data": [1, 2, 3], "shape": [3]}}, "value"),
        ("tensor", {"value": {"data": [1, 2], "shape": [1, 2]}}, "value"),
        ("tensor", {}, "value"),
    ],
)
def test_missing_fields_and_wrong_shapes(typed, name, fields, field):
    """A missing field or a wrong shape fails with INVALID_ARGUMENT and an entry for the field."""
    caller, _ = typed(name)
    with pytest.raises(grpc.RpcError) as caught:
        caller(f"{name}_predict", fields)
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status.code == code_pb2.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [violation.field for violation in bad.field_violations] == [field]


def test_get_models(typed):
    """get_models describes models as other services of this family do."""
    caller, _ = typed("params")
    (model,) = caller("get_models", {}).models
    assert {field.name: field.number for field in model.DESCRIPTOR.fields} == {
        "qualified_name": 1, "display_name": 2, "description": 3, "major_version": 4, "minor_version": 5,
        "input_type": 6, "output_type": 7, "predict_operation": 8,
    }  # fmt: skip
    assert (model.qualified_name, model.input_type, model.output_type, model.predict_operation) == (
        "params", "params_input", "params_output", "params_predict",
    )  # fmt: skip


def test_a_model_without_a_signature_has_no_typed_rpc(pair):
    """A model without a signature has only the plain predict."""
    _, call, _ = pair("no_signature")
    with pytest.raises(KeyError):
        TypedCaller(call.channel)
