"""Columns that the model ignores are named, and they are the ones that MLflow ignores: the answer without them is the
same."""

import json
from typing import Any, cast

import grpc
import pytest
from _mlflow_grpc_protocol.metadata import IGNORED_KEY
from grpc_status import rpc_status
from mlflow_grpc_client import _wire

from mlflow_grpc import protos
from mlflow_grpc.calls import ignored_columns as ignored
from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support.servers import Caller, serving
from tests.support.typed import SERVICE, TypedCaller, plain

UNKNOWN = b"\xc8\x3e\x05"  # Field 1001, a varint.


def ignored_of(call: Caller, text: str, **metadata: str) -> list[str]:
    """Returns the names in the trailer of a successful call."""
    pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    _, ended = call.raw.with_call(protos.Input(value=text).SerializeToString(), timeout=30, metadata=pairs)
    return named_in(ended.trailing_metadata())


def named_in(trailers: Any) -> list[str]:
    value = dict(trailers).get(IGNORED_KEY)
    return [] if value is None else _wire.ignored_columns(value)[0]


def split(columns: list[Any], *rows: list[Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(rows)}}


def records(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_records": list(rows)}


NUMBERS = {"a": 1, "b": 2.5}
CASES = [
    ("numbers", split(["a", "c", "b"], [1, 9, 2.5]), split(["a", "b"], [1, 2.5]), ["c"]),
    ("numbers", records(NUMBERS, {**NUMBERS, "c": 1, "d": 2}), records(NUMBERS, NUMBERS), ["c", "d"]),
    ("numbers", {"inputs": {"a": [1], "b": [2.5], "c": [1]}}, {"inputs": {"a": [1], "b": [2.5]}}, ["c"]),
    ("numbers", {"inputs": [{**NUMBERS, "c": 1}]}, {"inputs": [NUMBERS]}, ["c"]),
    ("numbers", {"instances": [{**NUMBERS, "c": 1}]}, {"instances": [NUMBERS]}, ["c"]),
    ("numbers", {**records(NUMBERS), "params": {"x": 1}}, {**records(NUMBERS), "params": {}}, ["params.x"]),
    ("numbered", split([0, 1, 2], [1, 2.5, 3]), split([0, 1], [1, 2.5]), ["2"]),
    ("optional", records({"need": 1.5, "may_doubel": 2.5}), records({"need": 1.5}), ["may_doubel"]),
    ("unnamed", split(["x", "y", "z"], [1, 2.5, 3]), split(["x", "y"], [1, 2.5]), ["z"]),
    ("unnamed_one", {"inputs": [[1.5, 2.5]]}, {"inputs": [[1.5]]}, ["1"]),
    ("tensors", {"inputs": {"x": [[1, 2]], "mask": [1], "y": [1]}}, {"inputs": {"x": [[1, 2]], "mask": [1]}}, ["y"]),
    ("params", {"inputs": [1.5], "params": {"top_k": 1, "temprature": 9}}, {"inputs": [1.5], "params": {"top_k": 1}},
     ["params.temprature"]),
    ("chat", {"messages": [{"role": "u", "content": "c"}], "temprature": 1.5}, {"messages": [{"role": "u", "content": "c"}]},
     ["temprature"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "payload", "without", "names"), CASES)
def test_ignored_columns_are_named(pair, name, payload, without, names):
    """The names are in the trailer for every format, and MLflow answers the same without these columns."""
    ask, call, _ = pair(name)
    assert ask(json.dumps(payload), "application/json") == ask(json.dumps(without), "application/json")
    assert ignored_of(call, json.dumps(payload)) == names
    assert ignored_of(call, json.dumps(without)) == []


def test_ignored_columns_of_csv(pair):
    """Ignored columns of CSV are named."""
    ask, call, _ = pair("numbers")
    assert ask("a,b,c\n1,2.5,3\n", "text/csv") == ask("a,b\n1,2.5\n", "text/csv")
    assert ignored_of(call, "a,b,c\n1,2.5,3\n", mlflow_content_type="text/csv") == ["c"]


def test_ignored_keys_of_pydantic_classes(pair):
    """Keys that a class behind a type hint ignores are named."""
    ask, call, _ = pair("hint_person")
    person = {"name": "a", "age": 1, "addresses": [{"street": "s"}]}
    mistyped = {"name": "a", "age": 1, "scoer": 1, "addresses": [{"street": "s", "nummer": 1}]}
    status, answer = ask(json.dumps({"inputs": [person]}), "application/json")
    assert status == 200, answer
    assert ask(json.dumps({"inputs": [mistyped]}), "application/json") == (200, answer)
    assert ignored_of(call, json.dumps({"inputs": [mistyped]})) == ["scoer", "addresses.nummer"]


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("no_signature", records({"x": 1})),
        ("hint_dict", {"inputs": [{"x": 1}]}),
        ("tensor", {"inputs": [[1, 2]]}),
        ("numbers", records(NUMBERS)),
    ],
)
def test_columns_that_reach_the_model_are_not_named(pair, name, payload):
    """A model without column names gets all columns, so none is named."""
    _, call, _ = pair(name)
    assert ignored_of(call, json.dumps(payload)) == []


ODD = ["größe", "a,b;more=3", "x\r\ny: z", " blank ", "%41", "\0", "😀" * 30]


def test_all_names_are_encoded(pair):
    """Names are percent-encoded, so none can look like two names or another header; names beyond the limit are counted."""
    _, call, _ = pair("numbers")
    assert ignored_of(call, json.dumps(records({**NUMBERS, **dict.fromkeys(ODD, 1)}))) == ODD
    data = protos.Input(value=json.dumps(records(NUMBERS | {f"column {index}": 1 for index in range(500)})))
    _, ended = call.raw.with_call(data.SerializeToString(), timeout=30)
    value = dict(ended.trailing_metadata())[IGNORED_KEY]
    names, more = _wire.ignored_columns(value)
    assert len(names) + more == 500
    assert 900 < len(value) < 1100


def test_names_that_are_not_utf_8():
    """A call with a lone surrogate, which JSON allows, or an empty name still has its trailer."""
    names = ignored.IgnoredColumns()
    names.add(["a\ud800", ""])
    assert names.trailers() == ((IGNORED_KEY, 'a?,""'),)
    assert _wire.ignored_columns('a?,""') == (["a?", '""'], 0)


def test_a_failed_call_has_the_trailer_too(pair):
    """A failed call has the trailer too, because a misspelt column may be the reason."""
    _, call, _ = pair("numbers")
    with pytest.raises(grpc.RpcError) as raised:
        call(json.dumps(records({"a": 1, "bb": 2.5})))
    assert named_in(raised.value.trailing_metadata()) == ["bb"]


@pytest.fixture
def typed(pair):
    _, call, _ = pair("numbers")
    return TypedCaller(call.channel), call.channel


def fields_ignored(channel: grpc.Channel, rpc: str, *messages: Any) -> list[str]:
    path = f"/{SERVICE}/{rpc}"
    if len(messages) == 1:
        _, ended = channel.unary_unary(path).with_call(messages[0], timeout=30)
    else:
        ended = channel.stream_stream(path)(iter(messages), timeout=30)
        assert len(list(ended)) == len(messages)
    return named_in(ended.trailing_metadata())


def test_unknown_fields_of_messages(typed):
    """Unknown fields of a record, of rows and of a stream are named by number; the answer is the same without them."""
    caller, channel = typed
    record = caller.input("numbers_predict", NUMBERS).SerializeToString()
    rows = caller.input("numbers_predict_batch", {"a": [1], "b": [2.5]}).SerializeToString()
    for rpc, data in (("numbers_predict", record), ("numbers_predict_batch", rows)):
        assert fields_ignored(channel, rpc, data + UNKNOWN) == ["1001"]
        assert fields_ignored(channel, rpc, data) == []
        answer: Any = channel.unary_unary(f"/{SERVICE}/{rpc}")
        assert answer(data + UNKNOWN, timeout=30) == answer(data, timeout=30)
    assert fields_ignored(channel, "numbers_predict_many", record, record + UNKNOWN, record + UNKNOWN) == ["1001"]


def test_unknown_fields_at_depth(pair):
    """Unknown fields within an Object are refused by path, as in JSON; where JSON ignores keys they are named."""
    _, call, _ = pair("structures")
    caller = TypedCaller(call.channel)
    message = caller.input("structures_predict", {"numbers": [1.5], "person": {"name": "a"}, "counts": {"x": 1}})
    message.person.MergeFromString(UNKNOWN)
    status, details = caller.outcome("structures_predict", message)
    assert (status, "person has fields that the model does not have, of the numbers 1001" in details) == (
        "INVALID_ARGUMENT",
        True,
    )
    _, call, _ = pair("hint_person")
    caller = TypedCaller(call.channel)
    message = caller.input("hint_person_predict", {"value": {"name": "a", "age": 1}})
    answer = plain(caller("hint_person_predict", message))
    message.value.MergeFromString(UNKNOWN)
    assert plain(caller("hint_person_predict", message)) == answer
    assert fields_ignored(call.channel, "hint_person_predict", message.SerializeToString()) == ["value.1001"]


@pytest.fixture(scope="module")
def strict(zoo_path):
    """A server that refuses unknown columns."""
    model = load_pyfunc(fetching.fetch(str(zoo_path("params"))), name="params")
    codec = ScoringCodec(model.metadata, model.loader_module, unknown_columns=UnknownColumns.REFUSE)
    with serving(model, codec) as server, Caller(server.address) as call:
        yield call


def test_unknown_columns_are_refused(strict):
    """--unknown-columns refuse: the error has the names with similar valid ones, also in the details."""
    payload = {"inputs": {"a": [1.5], "aa": [1]}, "params": {"temprature": 1, "top_k": 2}}
    with pytest.raises(grpc.RpcError) as raised:
        strict(json.dumps(payload))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = str(raised.value.details())
    assert "aa: the model has no such column" in details
    assert "params.temprature: the model has no such param; did you mean params.temperature?" in details
    status: Any = rpc_status.from_call(cast("grpc.Call", raised.value))
    assert b"params.temprature" in status.details[1].value
    assert strict(json.dumps({"inputs": {"a": [1.5]}, "params": {"top_k": 2}}))
    caller = TypedCaller(strict.channel)
    message = caller.input("params_predict", {"a": 1.5})
    assert caller.outcome("params_predict", message)[0] == "OK"
    message.MergeFromString(UNKNOWN)
    status_name, details = caller.outcome("params_predict", message)
    assert (status_name, "1001: the model has no such column" in details) == ("INVALID_ARGUMENT", True)


def test_csv_without_names_is_explained(strict):
    """--unknown-columns refuse: if none of the model's columns is there, the error has the names and a valid payload."""
    with pytest.raises(grpc.RpcError) as raised:
        strict("1.5,2.5\n3.5,4.5\n", mlflow_content_type="text/csv")
    details = str(raised.value.details())
    assert "None of the model's columns is in the CSV. Its first line is taken for their names." in details
    assert 'Seen in their place: "1.5", "2.5".' in details
    assert "This CSV works: " in details
    with pytest.raises(grpc.RpcError, match=r"params\.temprature: the model has no such param"):
        strict('{"inputs": [1.5], "params": {"temprature": 1}}')
