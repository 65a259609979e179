"""Columns that MLflow's formats treat differently, typed and as JSON: unnamed columns, and bytes in nested values."""

import base64
import json
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.parity.test_typed import in_any_order
from tests.support.typed import TypedCaller, batch_of, plain


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def echoed_rows(oracle: Any, payload: dict[str, Any]) -> list[Any]:
    """Returns the model's description of its input by MLflow."""
    status, answer = oracle(json.dumps(payload), "application/json")
    assert status == 200, answer
    return [in_any_order(row) for row in json.loads(answer)["predictions"]]


def same(pair: Any, name: str, rows: list[dict[str, Any]], payload: dict[str, Any]) -> None:
    """Checks that the model gets the same input for each row alone, for all rows together, and for the payload."""
    oracle, call, _ = pair(name)
    typed = TypedCaller(call.channel)
    messages = [typed.input(f"{name}_predict", row) for row in rows]
    (payload_key,) = payload
    for index, message in enumerate(messages):
        single_row = (
            payload[payload_key][index]
            if isinstance(payload[payload_key], list)
            else {"data": [payload[payload_key]["data"][index]]}
        )
        answer = plain(typed(f"{name}_predict", message))["prediction"]
        one_payload = {payload_key: [single_row] if isinstance(payload[payload_key], list) else single_row}
        assert in_any_order(answer) == echoed_rows(oracle, one_payload)[0]
    together = plain(typed(f"{name}_predict_batch", batch_of(typed, name, messages)))["prediction"]
    assert [in_any_order(row) for row in together] == echoed_rows(oracle, payload)


@pytest.mark.parametrize(
    ("name", "fields", "values"),
    [
        ("binary", [b64(b"\0\xffabc"), ""], [b64(b"\0\xffabc"), ""]),
        ("datetime", ["2020-02-29T12:00:00.123456789Z"], ["2020-02-29T12:00:00.123456789"]),
        ("any", [[5], [1, 2]], [[5], [1, 2]]),
        ("any", [{"a": 1}, {"b": [None]}, "x"], [{"a": 1}, {"b": [None]}, "x"]),
        ("any", [None, 1.5], [None, 1.5]),
        ("object", [{"name": "x"}, {"name": "", "age": 3}], [{"name": "x"}, {"name": "", "age": 3}]),
    ],
)
def test_one_unnamed_column(pair, name, fields, values):
    """The complete value reaches the model decoded, as by dataframe_split, and is not split."""
    rows = [{"value": field} for field in fields]
    same(pair, f"rows_unnamed_{name}", rows, {"dataframe_split": {"data": [[value] for value in values]}})


@pytest.mark.parametrize(("name", "values"), [("list", [[1, 2], [], [2**60]]), ("map", [{"a": 1}, {"": 2, "b": 0}])])
def test_unnamed_lists_and_maps(pair, name, values):
    """Lists and maps in an unnamed column reach the model complete."""
    rows = [{"value": value} for value in values]
    same(pair, f"rows_unnamed_{name}", rows, {"dataframe_split": {"data": [[value] for value in values]}})


@pytest.mark.parametrize(
    ("name", "fields", "values"),
    [
        ("hint_list_of_bytes", [[b64(b"\xff\0")], []], [[b64(b"\xff\0")], []]),
        ("hint_any", [{"value": 5}, [1], None], [{"value": 5}, [1], None]),
    ],
)
def test_type_hints(pair, name, fields, values):
    """The value reaches the model unchanged, with base64 decoded at every depth, as by MLflow."""
    same(pair, name, [{"value": field} for field in fields], {"inputs": values})


def test_bytes_in_nested_values(pair):
    """MLflow takes the text for the bytes in nested values, and the model gets the same."""
    data = b64(b"a\0 b")
    fields = {
        "list": [data, ""], "lists": {"values": [{"values": [data]}]}, "object": {"data": data},
        "map": {"values": {"k": {"values": [{"data": data}]}}},
    }  # fmt: skip
    record = {
        "list": ["a\0 b", ""],
        "lists": [["a\0 b"]],
        "object": {"data": "a\0 b"},
        "map": {"k": [{"data": "a\0 b"}]},
    }
    name = "rows_nested_bytes"
    oracle, call, _ = pair(name)
    typed = TypedCaller(call.channel)
    fields["list"] = {"values": fields["list"]}
    (expected,) = echoed_rows(oracle, {"dataframe_records": [record]})
    assert in_any_order(plain(typed(f"{name}_predict", fields))["prediction"]) == expected
    (together,) = plain(typed(f"{name}_predict_batch", {key: [value] for key, value in fields.items()}))["prediction"]
    assert in_any_order(together) == expected


@pytest.mark.parametrize("data", [b"\xff", "é".encode(), b"a\0"])
@pytest.mark.parametrize(
    ("field", "wrap", "where"),
    [
        ("list", lambda data: {"values": ["", data]}, "list[1]"),
        ("lists", lambda data: {"values": [{"values": [data]}]}, "lists[0][0]"),
        ("object", lambda data: {"data": data}, "object.data"),
        ("map", lambda data: {"values": {"k": {"values": [{"data": data}]}}}, "map.k[0].data"),
    ],
)
def test_bytes_without_a_text_are_refused(pair, data, field, wrap, where):
    """INVALID_ARGUMENT names the path, and the model gets no other bytes."""
    name = "rows_nested_bytes"
    typed = TypedCaller(pair(name)[1].channel)
    value = wrap(b64(data))
    for method, fields, at in (
        (f"{name}_predict", {field: value}, where),
        (f"{name}_predict_batch", {field: [wrap(""), value]}, f"[1].{where}"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            typed(method, fields)
        assert "must be ASCII" in (caught.value.details() or "")
        status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
        bad = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad) for detail in status.details)
        assert [violation.field for violation in bad.field_violations] == [at]


def test_empty_records_are_refused(pair):
    """MLflow makes no row from an empty record, so it is refused."""
    name = "rows_nested_bytes"
    oracle, call, _ = pair(name)
    assert echoed_rows(oracle, {"dataframe_records": [{}]}) == []
    outcome = TypedCaller(call.channel).outcome(f"{name}_predict", {})
    assert outcome == ("INVALID_ARGUMENT", "The record has no field: give one of list, lists, object, map at least.")


def test_nesting_beyond_protobufs_limit(pair):
    """About 50 nested lists are refused with a message of their own, unlike a message of another type."""
    _, call, _ = pair("rows_unnamed_any")
    typed = TypedCaller(call.channel)
    message = typed.input("rows_unnamed_any_predict", {})
    inner = message.value
    for _ in range(60):
        inner = inner.list_value.values.add()
    status, details = typed.outcome("rows_unnamed_any_predict", message)
    assert status == "INVALID_ARGUMENT"
    assert "or is nested more than 100 messages deep" in details


def test_a_missing_value_for_a_type_hint(pair):
    """An absent value is null for MLflow, which is not a text, so the field is refused by name."""
    oracle, call, _ = pair("hint_str")
    assert oracle(json.dumps({"inputs": [None]}), "application/json")[0] == 400
    status, details = TypedCaller(call.channel).outcome("hint_str_predict", {})
    assert status == "INVALID_ARGUMENT"
    assert "value: missing, and the model needs it" in details
