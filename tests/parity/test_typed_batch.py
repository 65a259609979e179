"""Rows in columns compared with the same rows as JSON: the model gets the same input to the bit."""

import base64
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_grpc.choices import Batching
from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.parity.test_typed import in_any_order
from tests.support.depth import examples
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, plain
from tests.support.versions import mlflow_is_before

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FLOATS = st.floats()
MOMENTS = st.integers(-(2**62), 2**62) | st.integers(-(2**33), 2**33).map(lambda seconds: seconds * 10**9)


Served = Callable[[str], tuple[TypedCaller, Oracle]]


@pytest.fixture(scope="module", params=[pytest.param(Batching.AUTO, marks=pytest.mark.deep), Batching.ON, Batching.OFF])
def typed(request, zoo_path) -> Iterator[Served]:
    """The typed RPCs of a model of the zoo that answers row by row, and MLflow's own answer for it."""
    with ExitStack() as stack:
        callers: dict[str, tuple[TypedCaller, Oracle]] = {}

        def get(name: str) -> tuple[TypedCaller, Oracle]:
            if name not in callers:
                path = zoo_path(f"rows_{name}")
                model = ModelConfig(uri=str(path), name=f"rows_{name}", batching=request.param, endpoint=True)
                call = stack.enter_context(Caller(stack.enter_context(serving_models([(model, None)])).address))
                callers[name] = (TypedCaller(call.channel), oracle_of(path))
            return callers[name]

        yield get


def echoed_rows(oracle: Oracle, payload: dict[str, Any]) -> list[Any]:
    """Returns the model's description of its input by MLflow."""
    status, answer = oracle(json.dumps(payload), "application/json")
    assert status == 200, answer
    predictions: list[Any] = json.loads(answer)["predictions"]
    return predictions


def same(typed: Any, name: str, payload: dict[str, Any], columns: dict[str, Any]) -> None:
    """Checks that both calls give the model the same input for each row, which it returns."""
    caller, oracle = typed(name)
    method = f"rows_{name}_predict_batch"
    message: Any = caller.input(method, {})
    for field, values in columns.items():
        if field.endswith("datetime"):
            for value in values:
                getattr(message, field).add(seconds=value // 10**9, nanos=value % 10**9)
        elif isinstance(values, dict):
            tensor = getattr(message, field)
            tensor.data.extend(values["data"])
            tensor.shape.extend(values.get("shape", []))
        else:
            getattr(message, field).extend(values)
    answer = plain(caller(method, message))["prediction"]
    assert [in_any_order(row) for row in answer] == [in_any_order(row) for row in echoed_rows(oracle, payload)]


def split(rows: dict[str, list[Any]]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(rows), "data": list(zip(*rows.values(), strict=True))}}


def nine_digit_time(nanos: int | None) -> str | None:
    """Formats a time with nine digits, because MLflow refuses a column with fewer digits in some rows."""
    return None if nanos is None else str(np.datetime64(nanos, "ns"))


def as_json(name: str, values: list[Any]) -> list[Any]:
    if name.endswith("binary"):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    return [nine_digit_time(value) for value in values] if name.endswith("datetime") else values


COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(), "integer": st.integers(-(2**31), 2**31 - 1), "long": INT64,
    "float": st.floats(width=32), "double": FLOATS, "string": TEXT, "binary": st.binary(max_size=3),
    "datetime": MOMENTS,
}  # fmt: skip

several = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def rows_of(columns: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, list[Any]]]:
    return st.integers(1, 4).flatmap(
        lambda count: st.fixed_dictionaries(
            {name: st.lists(strategy, min_size=count, max_size=count) for name, strategy in columns.items()}
        )
    )


@several
@given(rows_of({"a": INT64, "b": FLOATS}))
def test_numbers(typed, rows):
    """Columns that reach the model as arrays are equal to the last bit, with NaN, infinities and -0.0."""
    same(typed, "numbers", split(rows), rows)


@several
@given(rows_of(COLUMNS))
def test_every_column(typed, rows):
    """A batch of columns of all scalar types gets the answers that JSON gets."""
    same(typed, "every_column", split({name: as_json(name, values) for name, values in rows.items()}), rows)


@several
@given(
    rows_of(
        {
            f"may_{name}": st.none() | strategy
            for name, strategy in COLUMNS.items()
            if name in ("double", "string", "datetime")
        }
    )
)
def test_rows_without_a_value(typed, rows):
    """A row among a column's nulls is null in JSON; the column's value there has no meaning."""
    payload = split({"need": [0.5] * len(rows["may_double"]), **{k: as_json(k, v) for k, v in rows.items()}})
    filler: dict[str, Any] = {"may_double": 7.5, "may_string": "filler", "may_datetime": 1}
    columns: dict[str, Any] = {"need": [0.5] * len(rows["may_double"])}
    for name, values in rows.items():
        columns[name] = [filler[name] if value is None else value for value in values]
        columns[f"{name}_nulls"] = [index for index, value in enumerate(values) if value is None]
    same(typed, "optional", payload, columns)


@several
@given(
    rows_of(
        {
            "may_double": st.none() | FLOATS,
            "may_long": INT64,
            "may_float": st.none() | st.floats(width=32),
            "need": FLOATS,
        }
    )
)
def test_numbers_without_a_value(typed, rows):
    """Optional numeric columns reach the model as arrays; a missing float is NaN, as in MLflow."""
    columns = dict(rows)
    for name in ("may_double", "may_float"):
        columns[name] = [0.0 if value is None else value for value in rows[name]]
        columns[f"{name}_nulls"] = [index for index, value in enumerate(rows[name]) if value is None]
    in_order = {name: rows[name] for name in ("need", "may_long", "may_float", "may_double")}
    same(typed, "optional", split(in_order), columns)


@pytest.mark.parametrize(
    "name", ["may_long", "may_boolean", "may_integer", "may_float", "may_string", "may_binary", "may_datetime"]
)
def test_nulls_of_other_columns(typed, name):
    """A null of another type becomes what MLflow makes of it (False of a boolean before 3.18), or is refused for
    integers and bytes."""
    caller, oracle = typed("optional")
    values = {"may_boolean": True, "may_string": "x", "may_binary": "AQ==", "may_datetime": "2020-02-29T12:00:00Z"}
    value: Any = values.get(name, 1)
    payload = split({"need": [1.0, 2.0], name: [value.removesuffix("Z") if isinstance(value, str) else value, None]})
    status, answer = oracle(json.dumps(payload), "application/json")
    assert (status != 200) == (name in ("may_long", "may_integer", "may_binary"))
    assert ("bool False" in answer) == (name == "may_boolean" and mlflow_is_before("3.18"))
    fields = {"need": [1.0, 2.0], name: [value, value], f"{name}_nulls": [1]}
    outcome, got = caller.outcome("rows_optional_predict_batch", fields)
    assert (outcome == "OK") == (status == 200), (got, answer)
    if status == 200:
        assert list(map(in_any_order, plain(got)["prediction"])) == [
            in_any_order(row) for row in json.loads(answer)["predictions"]
        ]


def test_an_optional_column_may_be_left_out(typed):
    """Leaving out an optional column has the same effect as in JSON."""
    same(typed, "optional", split({"need": [1.0, 2.0]}), {"need": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("name", "payload", "columns"),
    [
        ("one_string", split({"q": ["", "a\0", "é"]}), {"q": ["", "a\0", "é"]}),
        ("one_boolean", split({"flag": [True, False]}), {"flag": [True, False]}),
        ("unnamed", {"dataframe_split": {"data": [[1, 0.5], [-2, math.inf]]}}, {"column_0": [1, -2], "column_1": [0.5, math.inf]}),
        ("unnamed_one", {"inputs": [1.5, 2.0]}, {"value": [1.5, 2.0]}),
        ("tensor", {"inputs": [[1.5, 2], [3, 4], [5, 6]]}, {"value": {"data": [1.5, 2, 3, 4, 5, 6], "shape": [3, 2]}}),
        ("tensor", {"inputs": [[1.5, 2], [3, 4]]}, {"value": {"data": [1.5, 2, 3, 4]}}),
        ("tensor_ints", {"inputs": [0, 255]}, {"value": [0, 255]}),
        (
            "tensors",
            {"inputs": {"x": [[1, 2], [3, math.nan]], "mask": [0, 2**60]}},
            {"x": {"data": [1, 2, 3, math.nan]}, "mask": [0, 2**60]},
        ),
        ("tensor_named", {"inputs": {"text": ["a", ""]}}, {"text": ["a", ""]}),
        ("tensor_bytes", {"inputs": {"one": ["a", "b"], "two": [["c", "d"], ["e", "f"]]}}, {
            "one": [b"a", b"b"], "two": {"data": [b"c", b"d", b"e", b"f"], "shape": [2, 2]},
        }),
    ],
)  # fmt: skip
def test_other_signatures(typed, name, payload, columns):
    """Texts, unnamed columns, and tensors with and without a shape."""
    same(typed, name, payload, columns)


def test_nested_types(typed):
    """A batch of lists, objects, maps and any values gets the answers that JSON gets, row by row."""
    caller, oracle = typed("structures")
    payload = split(
        {
            "numbers": [[1.5], []],
            "person": [{"name": "a", "age": 2**60}, {"name": ""}],
            "counts": [{"x": 1}, {"y": 2, "z": 3}],
            "anything": [{"deep": [1, None]}, "word"],
        }
    )
    fields = {
        "numbers": [{"values": [1.5]}, {}],
        "person": [{"name": "a", "age": str(2**60)}, {"name": ""}],
        "counts": [{"values": {"x": "1"}}, {"values": {"y": "2", "z": "3"}}],
        "anything": [{"deep": [1, None]}, "word"],
    }
    answer = plain(caller("rows_structures_predict_batch", fields))["prediction"]
    assert [in_any_order(row) for row in answer] == [in_any_order(row) for row in echoed_rows(oracle, payload)]


def test_params(typed):
    """Params apply to all rows, and absent ones have their defaults."""
    caller, oracle = typed("params")
    params = {"temperature": 0.0, "label": "", "stops": {"values": []}}
    answer = plain(caller("rows_params_predict_batch", {"a": [1.0, 2.0], "params": params}))["prediction"]
    payload = {**split({"a": [1.0, 2.0]}), "params": {**params, "stops": []}}
    assert [in_any_order(row) for row in answer] == [in_any_order(row) for row in echoed_rows(oracle, payload)]


@pytest.mark.parametrize(
    ("name", "fields", "field", "text"),
    [
        ("numbers", {}, "a", "no rows"),
        ("numbers", {"a": [1], "b": [1.0, 2.0]}, "a", "each of 2 rows"),
        ("numbers", {"a": [1]}, "b", "each of 1 rows"),
        ("optional", {"need": [1.0], "mayDouble": [1.0, 2.0]}, "need", "each of 2 rows"),
        ("optional", {"need": [1.0], "mayDouble": [1.0], "mayDoubleNulls": ["1"]}, "may_double_nulls", "1 rows"),
        ("tensor", {"value": {"data": [1, 2, 3], "shape": ["2", "2"]}}, "value", "shape [2, 2]"),
        ("tensor", {"value": {"data": [1, 2, 3]}}, "value", "shape"),
    ],
)
def test_inconsistent_columns_are_refused(typed, name, fields, field, text):
    """Inconsistent columns of a batch fail with INVALID_ARGUMENT, the column and the problem."""
    caller, _ = typed(name)
    with pytest.raises(grpc.RpcError) as caught:
        caller(f"rows_{name}_predict_batch", fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in (caught.value.details() or "")
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert field in [violation.field for violation in bad.field_violations]
