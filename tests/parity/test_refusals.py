"""Errors for refused payloads: the path, the problem, and a value that MLflow accepts there.

Each case has a payload that MLflow refuses, and the same payload corrected as the error says, which MLflow accepts. The
second payload is None if JSON has no valid value. The strings of the payloads contain a word that no error may repeat.
"""

import json
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.support.typed import TypedCaller
from tests.support.versions import has_pandas_2

SECRET = "hush"  # In every payload in which a caller can choose a string.
TIME, ZONED = "2020-02-29T12:00:00", "2020-02-29T12:00:00+02:00"
ROW = {
    "boolean": True, "integer": 1, "long": 2, "float": 1.5, "double": 2.5, "string": SECRET, "binary": "aHVzaA==",
    "datetime": TIME,
}  # fmt: skip
SAMPLE_PART = {"name": SECRET, "weight": 1.5}
PERSON = {"name": SECRET, "age": 3}
USER = {"role": "user", "content": SECRET}


def records(*rows: Any) -> dict[str, Any]:
    return {"dataframe_records": list(rows)}


def split(columns: list[str], *rows: list[Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(rows)}}


def every(**changed: Any) -> dict[str, Any]:
    """Makes two rows with all columns, of which the second is changed."""
    return records(ROW, {**ROW, **changed})


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def may(**columns: Any) -> dict[str, Any]:
    return records({"need": 1.5, **dict.fromkeys(columns, 3)}, {"need": 1.5, **columns})


def changed_part(**changed: Any) -> dict[str, Any]:
    return records({"part": SAMPLE_PART}, {"part": {**SAMPLE_PART, **changed}})


def params(**values: Any) -> dict[str, Any]:
    return {"inputs": [1.5], "params": values}


def inputs(value: Any) -> dict[str, Any]:
    return {"inputs": value}


Case = tuple[str, Any, Any, list[str]]
"""A model, a payload, the corrected payload, and excerpts of the error."""

COLUMNS: list[Case] = [
    ("every_column", every(datetime=ZONED), every(datetime=TIME), ["dataframe_records[1].datetime has a time zone; write it without one, such as \"2020-02-29T12:00:00\""]),
    ("every_column", every(datetime="2020-02-29T12:00:00.123456789Z"), every(datetime=TIME), ["dataframe_records[1].datetime has a time zone"]),
    ("every_column", split(list(ROW), list(ROW.values()), [*list(ROW.values())[:-1], ZONED]), split(list(ROW), list(ROW.values())), ["dataframe_split.data[1][7] has a time zone"]),
    ("every_column", every(datetime=SECRET), every(datetime=TIME), ["dataframe_records[1].datetime is a string that is not a date and time", '"2020-02-29T12:00:00"']),
    ("every_column", every(datetime="1500-01-01"), every(datetime=TIME), ["is a date and time before 1678 or after 2261"]),
    ("every_column", every(datetime="2020-01-01"), every(datetime=TIME), ["datetime: the strings differ in form; write all of them alike"]),
    ("every_column", inputs({name: [value] for name, value in {**ROW, "datetime": SECRET}.items()}), inputs({name: [value] for name, value in ROW.items()}), ["inputs.datetime[0] is a string that is not a date and time"]),
    ("every_column", every(binary="aHVzaA"), every(binary="aHVzaA=="), ["dataframe_records[1].binary is a string that is not base64; must be binary: bytes as a string in base64, such as \"AQID\""]),
    ("every_column", every(binary=5), every(binary="AQID"), ["dataframe_records[1].binary is a whole number", "base64"]),
    ("every_column", every(long=None), every(long=3), ["dataframe_records[1].long is null; must be long: a whole number of 64 bits, such as 3"]),
    ("every_column", every(double=SECRET), every(double=1.5), ["dataframe_records[1].double is a string; must be double: a number, such as 1.5"]),
    ("every_column", every(integer={SECRET: 1}), every(integer=3), ["dataframe_records[1].integer is an object; must be integer: a whole number from -2147483648"]),
    ("every_column", inputs({name: [2**40 if name == "integer" else value] for name, value in ROW.items()}), inputs({name: [value] for name, value in ROW.items()}), ["inputs.integer[0] is a whole number that does not fit into 32 bits"]),
    ("every_column", records(ROW, without(ROW, "long")), records(ROW), ["dataframe_records[1] lacks long; it must be long"]),
    ("every_column", records(without(ROW, "long", "datetime")), records(ROW), ["long: missing; must be long (required)", "datetime: missing", '"2020-02-29T12:00:00"']),
    ("optional", may(may_long=None), may(), ["dataframe_records[1].may_long is null; must be long", "or leave the column out of all rows"]),
    ("optional", may(may_long=None), may(may_long=3), ["such as 3"]),
    ("optional", may(may_long=float("nan")), may(), ["may_long is NaN; must be long", "or leave the column out of all rows"]),
    ("every_column", every(integer=float("inf")), every(integer=3), ["dataframe_records[1].integer is Infinity; must be integer"]),
    ("optional", records({"need": 1.5, "may_integer": 1}, {"need": 1.5}), may(may_integer=2), ["may_integer: is in some rows and not in others, where MLflow takes it in all or in none"]),
    ("optional", records({"need": 1.5, "may_binary": None}), records({"need": 1.5}), ["dataframe_records[0].may_binary is null", "or leave the column out of all rows"]),
    ("optional", split(["need", "may_long"], [1.5, None]), split(["need"], [1.5]), ["dataframe_split.data[0][1] is null", "or leave the column out of all rows"]),
    ("unnamed", {"dataframe_split": {"data": [[1, 2.5], [1, SECRET]]}}, {"dataframe_split": {"data": [[1, 2.5]]}}, ["1: column 1, which has no name: dataframe_split.data[1][1] is a string; must be double"]),
    ("unnamed", split(["p", SECRET], [1, 2.5], [SECRET, 2]), split(["p", "q"], [1, 2.5]), ["column 0, which has no name: dataframe_split.data[1][0] is a string"]),
    ("unnamed", {"dataframe_split": {"data": [[1], [2]]}}, {"dataframe_split": {"data": [[1, 1.5], [2, 1.5]]}}, ["column 1, which has no name: missing; must be double"]),
    ("unnamed", inputs([[1, 2.5]]), {"dataframe_split": {"data": [[3, 1.5]]}}, ['MLflow takes {"dataframe_split": {"data": [[3, 1.5]]}}']),
    ("unnamed", inputs({SECRET: 1}), {"dataframe_split": {"data": [[3, 1.5]]}}, ["2 columns have no name: inputs must be an array", '{"dataframe_split": {"data": [[3, 1.5]]}}']),
    ("unnamed_one", inputs([SECRET]), inputs([1.5]), ["column 0, which has no name: inputs[0] is a string"]),
    ("two_unnamed", {"dataframe_split": {"data": [[1, TIME], [2, ZONED]]}}, {"dataframe_split": {"data": [[1, TIME], [2, TIME]]}}, ["column 1, which has no name: dataframe_split.data[1][1] has a time zone"]),
    ("unnamed_object", {"dataframe_split": {"data": [[{"name": SECRET}], [{"age": 3}]]}}, {"dataframe_split": {"data": [[{"name": "a"}], [{"name": "b", "age": 3}]]}}, ["column 0, which has no name: dataframe_split.data[1][0] lacks name"]),
    ("numbers", inputs([[1, 2.5]]), records({"a": 3, "b": 1.5}), ["inputs[0] must be an object, it is an array", '{"dataframe_records": [{"a": 3, "b": 1.5}]}']),
    ("numbers", records({"a": 1, "b": 2}, 3), records({"a": 1, "b": 2}), ["dataframe_records[1] must be an object, it is a whole number"]),
    ("numbers", records(), records({"a": 3, "b": 1.5}), ["dataframe_records is empty", '{"dataframe_records": [{"a": 3, "b": 1.5}]}']),
    ("numbers", {"dataframe_split": {"columns": [{SECRET: 1}], "data": [[1]]}}, split(["a", "b"], [1, 2]), ["dataframe_split.columns[0] must be a string, it is an object"]),
    ("numbers", {"dataframe_split": {"columns": SECRET, "data": [[1, 2]]}}, split(["a", "b"], [1, 2]), ["columns of dataframe_split must be an array of strings, they are a string"]),
    ("numbers", inputs({"a": [1, 2], "b": [1.5]}), inputs({"a": [1, 2], "b": [1.5, 2.5]}), ["arrays in inputs have different lengths (2, 1)"]),
    ("numbers", {"input": SECRET}, records({"a": 3, "b": 1.5}), ["key messages, prompt or input", "the model's inputs are a, b", '{"dataframe_records": [{"a": 3, "b": 1.5}]}']),
]  # fmt: skip

WITHIN: list[Case] = [
    ("part", records({"part": SAMPLE_PART}, {"part": SECRET}), changed_part(), ["dataframe_records[1].part is a string; must be Object: an object with maker (optional), name"]),
    ("part", records({"part": without(SAMPLE_PART, "weight")}), changed_part(), ["dataframe_records[0].part lacks weight; it must be double: a number, such as 1.5"]),
    ("part", changed_part(weight=2), changed_part(weight=2.0), ["dataframe_records[1].part.weight is a number without a decimal point; must be double: a number, such as 1.5"]),
    ("part", changed_part(name=None), changed_part(name="text"), ["dataframe_records[1].part.name is null; must be string: text in quotes"]),
    ("part", changed_part(**{SECRET: 1}), changed_part(), ["dataframe_records[1].part has keys that the signature does not have (3rd key); leave them out"]),
    ("part", changed_part(tags=SECRET), changed_part(tags=["text"]), ["dataframe_records[1].part.tags is a string; must be Array(string): an array of strings, such as [\"text\"]"]),
    ("part", changed_part(maker={"country code": 5}), changed_part(maker={"country code": "DE"}), ["dataframe_records[1].part.maker[\"country code\"] is a whole number"]),
    ("part", changed_part(sizes={"a": [1.5], SECRET: [SECRET]}), changed_part(sizes={"a": [1.5], "b": [1.5]}), ["dataframe_records[1].part.sizes.<2nd key>[0] is a string; must be double"]),
    ("part", records({"part": SAMPLE_PART, "spare parts": [SAMPLE_PART, {**SAMPLE_PART, "name": 5}]}), records({"part": SAMPLE_PART, "spare parts": [SAMPLE_PART]}), ["dataframe_records[0][\"spare parts\"][1].name is a whole number"]),
    ("part", records({"part": SAMPLE_PART, "spare parts": [SAMPLE_PART]}, {"part": SAMPLE_PART}), records({"part": SAMPLE_PART, "spare parts": [SAMPLE_PART]}, {"part": SAMPLE_PART, "spare parts": None}), ["spare parts: is in some rows and not in others", "write null where there is none"]),
    ("part", split(["spare parts", "part"], [[SAMPLE_PART], SAMPLE_PART], [None, {"weight": 1.5}]), split(["spare parts", "part"], [[SAMPLE_PART], SAMPLE_PART], [None, SAMPLE_PART]), ["dataframe_split.data[1][1] lacks name"]),
    ("part", inputs({"part": {**SAMPLE_PART, "weight": SECRET}}), inputs({"part": SAMPLE_PART}), ["inputs.part.weight is a string"]),
    ("part", {"instances": [{"part": SAMPLE_PART}]}, changed_part(), ["instances[0].part has to be Object, which MLflow does not take in instances: send dataframe_records"]),
    ("nested", inputs({"words": [["a"], [SECRET, "c"]]}), records({"words": [["a"], ["b", "c"]]}), ["inputs.words has to be Array(Array(string)), which MLflow does not take in inputs: send dataframe_records"]),
    ("named_list", inputs([[1.5, 2.5], [3.5, 4.5]]), records({"vector": [1.5, 2.5]}, {"vector": [3.5, 4.5]}), ["vector: inputs[0] has to be Array(double), which MLflow does not take in inputs: send dataframe_records"]),
    ("named_list", inputs([[1.5, SECRET]]), records({"vector": [1.5, 2.5]}), ["inputs[0][1] is a string"]),
    ("named_list", inputs({"vector": [[1.5, 2.5]]}), records({"vector": [1.5, 2.5]}), ["inputs.vector has a value for each of several rows, but MLflow reads the object in inputs as one row: send dataframe_records"]),
    ("named_list", inputs({"vector": [1.5, SECRET]}), inputs({"vector": [1.5, 2.5]}), ["inputs.vector[1] is a string; must be double"]),
    ("structures", inputs({"numbers": [[1.5], [2.5]], "person": [PERSON] * 2, "counts": [{"a": 3}] * 2}), records(*[{"numbers": [1.5], "person": PERSON, "counts": {"a": 3}}] * 2), ["inputs.numbers has a value for each of several rows", "inputs.person has a value for each of several rows"]),
    ("within", records({"long": {"value": 1.0}}), records({"long": {"value": 1}}), ["dataframe_records[0].long.value is a number with a decimal point; must be long"]),
    ("within", records({"boolean": {"value": "true"}}), records({"boolean": {"value": True}}), ["dataframe_records[0].boolean.value is a string; must be boolean: true or false"]),
    ("within", records({"long": {"value": 1, "maybe": SECRET}}), records({"long": {"value": 1, "maybe": 2}}), ["dataframe_records[0].long.maybe is a string"]),
    ("within", records({"datetime": {"value": TIME}}), None, ["dataframe_records[0].datetime.value is a string; must be datetime, and MLflow takes no JSON value for that here: the model's owner must declare string"]),
    ("within", records({"integer": {"value": 0, "maybe": 3}}), None, ["the model's owner must declare long", "dataframe_records[0].integer.maybe is a whole number; must be integer, and MLflow takes no JSON value for that here: leave it out"]),
    ("structures", inputs({"numbers": [1, 2], "person": PERSON, "counts": {}}), inputs({"numbers": [1.0, 2.0], "person": PERSON, "counts": {}}), ["inputs.numbers[1] is a number without a decimal point"]),
    ("structures", inputs({"numbers": [1.5], "person": {**PERSON, "age": SECRET}, "counts": {SECRET: SECRET}}), inputs({"numbers": [1.5], "person": PERSON, "counts": {"a": 3}}), ["inputs.person.age is a string", "inputs.counts.<1st key> is a string; must be long"]),
    ("structures", inputs({"numbers": 5, "person": PERSON, "counts": {"a": 3}}), inputs({"numbers": [1.5], "person": PERSON, "counts": {"a": 3}}), ["signature. numbers: inputs.numbers is a whole number; must be Array(double): an array of numbers, such as [1.5]."]),
    ("unnamed_map", {"dataframe_split": {"data": [[{SECRET: SECRET}]]}}, {"dataframe_split": {"data": [[{"a": 3}]]}}, ["column 0, which has no name: dataframe_split.data[0][0].<1st key> is a string"]),
]  # fmt: skip

PARAMS: list[Case] = [
    ("param_object", params(options={"name": SECRET}), params(options=SAMPLE_PART), ["params.options lacks weight; it must be double: a number, such as 1.5"]),
    ("param_object", params(options=SECRET), params(options=SAMPLE_PART), ["params.options is a string; must be Object: an object with", '{"name": "text", "weight": 1.5}']),
    ("param_object", params(options=None), params(options=SAMPLE_PART), ["params.options is null; must be Object"]),
    ("param_object", params(options={**SAMPLE_PART, "maker": {"country code": 1}}), params(options={**SAMPLE_PART, "maker": {"country code": "DE"}}), ["params.options.maker[\"country code\"] is a whole number; must be string"]),
    ("param_object", params(options={**SAMPLE_PART, "tags": {SECRET: 1}}), params(options={**SAMPLE_PART, "tags": ["text"]}), ["params.options.tags is an object; must be Array(string)"]),
    ("param_object", params(options={**SAMPLE_PART, SECRET: 1}), params(options=SAMPLE_PART), ["params.options has keys that the signature does not have (3rd key)"]),
    ("param_object", params(top_k="3"), params(top_k=3), ["params.top_k is a string; must be integer: a whole number from"]),
    ("param_object", params(top_k=3.5), params(top_k=3), ["params.top_k is a number with a decimal point"]),
    ("param_object", params(flag=1), params(flag=True), ["params.flag is a whole number; must be boolean: true or false"]),
    ("param_object", params(since=SECRET), params(since=TIME), ["params.since is a string that is not a date and time", '"2020-02-29T12:00:00"']),
    ("param_object", params(since=5), params(since=TIME), ["params.since is a whole number; must be datetime"]),
    ("param_object", params(stops=SECRET), params(stops=["text"]), ["params.stops is a string; must be Array(string): an array of strings, such as [\"text\"]"]),
    ("param_object", params(weights=[1.5, SECRET]), params(weights=[1.5, 2.5]), ["params.weights[1] is a string; must be double"]),
    ("param_object", {"inputs": [1.5], "params": [SECRET]}, params(), ["params: must be an object, is an array"]),
    ("chat", {"messages": [USER], "top_k": SECRET}, {"messages": [USER], "top_k": 5}, ["params.top_k: top_k is a string; must be integer"]),
]  # fmt: skip

LANGUAGE: list[Case] = [
    ("chat", {"messages": [USER, {"role": SECRET}]}, {"messages": [USER]}, ["messages[1] lacks content; it must be string"]),
    ("chat", {"messages": [USER], "temperature": 2}, {"messages": [USER], "temperature": 2.0}, ["temperature is a number without a decimal point"]),
    ("chat", {"messages": [{**USER, "content": [SECRET]}]}, {"messages": [USER]}, ["messages[0].content is an array; must be string"]),
    ("prompt", {"prompt": 5}, {"prompt": SECRET}, ["prompt is a whole number; must be string"]),
]  # fmt: skip

HINTS: list[Case] = [
    ("hint_str", inputs(["a", 5]), inputs(["a", "b"]), ["inputs[1]: is a whole number; must be string: text in quotes"]),
    ("hint_str", inputs(SECRET), inputs([SECRET]), ["inputs: is a string; must be an array"]),
    ("hint_str", {"instances": [SECRET]}, inputs([SECRET]), ["must have the key inputs with an array"]),
    ("hint_int", inputs([1.0]), inputs([1]), ["inputs[0]: is a number with a decimal point; must be long"]),
    ("hint_float", inputs([1]), inputs([1.0]), ["inputs[0]: is a number without a decimal point"]),
    ("hint_bytes", inputs(["aHVzaA"]), inputs(["aHVzaA=="]), ["inputs[0]: is a string that is not base64; must be binary: bytes as a string in base64, such as \"AQID\""]),
    ("hint_datetime", inputs([SECRET]), inputs([TIME]), ["inputs[0]: is a string that is not a date and time in ISO 8601", '"2020-02-29T12:00:00"']),
    ("hint_dict", inputs([{"a": 1, SECRET: SECRET}]), inputs([{"a": 1}]), ["inputs[0].<2nd key>: is a string; must be long"]),
    ("hint_list_of_bytes", inputs([["aHVzaA==", "A"]]), inputs([["aHVzaA=="]]), ["inputs[0][1]: is a string that is not base64"]),
    ("hint_dict_of_times", inputs([{SECRET: SECRET}]), inputs([{"a": TIME}]), ["inputs[0].<1st key>: is a string that is not a date and time"]),
    ("hint_person", inputs([PERSON, {"name": SECRET}]), inputs([PERSON]), ["inputs[1]: lacks age; it must be long: a whole number of 64 bits, such as 3"]),
    ("hint_person", inputs([{"name": 5, "age": "3", "score": SECRET}]), inputs([PERSON]), ["inputs[0].name: is a whole number; must be string", "inputs[0].age: is a string; must be long", "inputs[0].score: is a string; must be double"]),
    ("hint_person", inputs([{**PERSON, "addresses": [{"street": SECRET}, {"street": 5}]}]), inputs([{**PERSON, "addresses": [{"street": SECRET}]}]), ["inputs[0].addresses[1].street: is a whole number; must be string"]),
    ("hint_person", inputs([PERSON, SECRET]), inputs([PERSON]), ["inputs[1]: is a string; must be Object: an object with addresses, age, name, score"]),
    ("hint_list_of_people", inputs([[PERSON], [PERSON, {"name": SECRET}]]), inputs([[PERSON]]), ["inputs[1][1]: lacks age"]),
    ("hint_event", inputs([{"at": TIME}]), None, ["inputs[0].at: is a string; must be datetime, for which pydantic takes no string in MLflow's strict mode: the model's owner must declare str"]),
    ("hint_event", inputs([{"at": 5, "data": SECRET}]), None, ["inputs[0].data: is a string; must be bytes", "leave it out"]),
    ("hint_order", inputs([{"size": SECRET}]), inputs([{"size": "small"}]), ["inputs[0].size: is refused; string must match pattern '^(small|large)$'"]),
    ("hint_order", inputs([{"size": "small", "count": 20}]), inputs([{"size": "small", "count": 9}]), ["inputs[0].count: is refused; it must be less than or equal to 9"]),
    ("hint_order", inputs([{"size": "small", "buyers": {SECRET: {"name": SECRET}}}]), inputs([{"size": "small", "buyers": {"a": PERSON}}]), ["inputs[0].buyers.<1st key>: lacks age"]),
    ("hint_order", inputs([{"size": "small", "secret": SECRET}]), inputs([{"size": "small", "secret": "abc"}]), ["inputs[0].secret: is refused by the model"]),
]  # fmt: skip

TENSORS: list[Case] = [
    ("tensor", inputs([[1, 2, 3]]), inputs([[1, 2]]), ["inputs has shape (1, 3); must be float32 tensor of shape (-1, 2): nested arrays"]),
    ("tensor", inputs([[1, 2], [1, SECRET]]), inputs([[1, 2], [1, 2]]), ["inputs[1][1] is a string; must be float32: a number, such as 1.5"]),
    ("tensor", inputs([[1, 2], [3]]), inputs([[1, 2], [3, 4]]), ["inputs[1] has shape (1,); must have (2,) like inputs[0]"]),
    ("tensor", inputs({SECRET: [[1, 2]]}), inputs([[1, 2]]), ["inputs is an object; must be float32 tensor"]),
    ("tensor", records({SECRET: 1, "b": SECRET}), inputs([[1, 2]]), ["send inputs, which must be float32 tensor"]),
    ("tensor_ints", inputs([300]), inputs([255]), ["inputs[0] is a whole number that does not fit; must be uint8: a whole number from 0 to 255"]),
    ("tensors", inputs({"x": [[1, 2]], "mask": [SECRET]}), inputs({"x": [[1, 2]], "mask": [1]}), ["inputs.mask[0] is a string; must be int64"]),
    ("tensors", inputs({"x": [[1, 2]]}), inputs({"x": [[1, 2]], "mask": [1]}), ["mask: missing; must be int64 tensor of shape (-1,)"]),
    ("tensors", {"instances": [{"x": [1, 2], "mask": 1}, {"x": [1, SECRET], "mask": 1}]}, {"instances": [{"x": [1, 2], "mask": 1}]}, ["instances[1].x[1] is a string; must be float64"]),
]  # fmt: skip

TABLES: list[Case] = [
    ("numbers", "a,b\n1,2\n1,hush\n", "a,b\n1,2\n1,1.5\n", ["row 1, column b is a string; must be double: a number, such as 1.5"]),
    ("numbers", "a,b\n1,2\n,3\n", "a,b\n1,2\n3,3\n", ["row 1, column a is empty; must be long"]),
    ("optional", "need,may_long\n1.5,2\n1.5,\n", "need\n1.5\n1.5\n", ["row 1, column may_long is empty", "or leave the column out of all rows"]),
    ("one_boolean", "flag\nhush\n", "flag\ntrue\n", ["row 0, column flag is a string; must be boolean: true or false"]),
    ("every_column", f"{','.join(ROW)}\ntrue,1,2,1.5,2.5,hush,AQID,{TIME}\n", None, ["row 0, column datetime has to be datetime, which MLflow does not take in CSV: send dataframe_records"]),
]  # fmt: skip


def _text(payload: Any) -> str:
    return payload if isinstance(payload, str) else json.dumps(payload)


def _violations(error: Any) -> list[error_details_pb2.BadRequest.FieldViolation]:
    status: Any = rpc_status.from_call(error)
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad)
    return list(bad.field_violations)


def _id(case: Case) -> str:
    return f"{case[0]}-{_text(case[1])[:60]}"


@pytest.mark.parametrize(
    "case", [*COLUMNS, *WITHIN, *PARAMS, *LANGUAGE, *HINTS, *TENSORS, *TABLES], ids=_id
)  # fmt: skip
def test_errors_have_the_path_and_the_correct_form(pair, case):
    """MLflow refuses the payload too. The error has the path and the correct form, which MLflow then accepts.

    With pandas 2, which older versions require, it accepts a few of these payloads.
    """
    name, payload, right, fragments = case
    oracle, call, _ = pair(name)
    mime = "text/csv" if isinstance(payload, str) else "application/json"
    status, answer = oracle(_text(payload), mime)[:2]
    if status == 200:
        assert has_pandas_2()
        assert call(_text(payload), mlflow_content_type=mime) == answer
        return
    if right is not None:
        assert oracle(_text(right), mime)[0] == 200
    with pytest.raises(grpc.RpcError) as caught:
        call(_text(payload), mlflow_content_type=mime)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    message = caught.value.details() or ""
    for fragment in fragments:
        assert fragment in message
    for violation in _violations(caught.value):
        assert f"{violation.field}: {violation.description}" in message
        assert "hush" not in violation.field + violation.description
    assert "hush" not in message
    assert "aHVza" not in message
    assert "The payload was refused." not in message


@pytest.mark.parametrize(
    ("name", "payload", "fields"),
    [
        ("every_column", every(long=None, double=SECRET), ["long", "double"]),
        ("unnamed", {"dataframe_split": {"data": [[SECRET, SECRET]]}}, ["0", "1"]),
        ("part", records({"part": {}}), ["part", "part"]),
        ("param_object", params(options={}, top_k="3"), ["params.options", "params.options", "params.top_k"]),
        ("hint_person", inputs([PERSON, {"name": 5}]), ["inputs[1]", "inputs[1].name"]),
        ("tensors", inputs({"mask": [SECRET]}), ["x", "mask"]),
    ],
)
def test_the_fields_at_fault(pair, name, payload, fields):
    """BadRequest names columns as in the signature, unnamed columns by position, and params with the prefix `params.`."""
    _, call, _ = pair(name)
    with pytest.raises(grpc.RpcError) as caught:
        call(_text(payload))
    assert sorted(violation.field for violation in _violations(caught.value)) == sorted(fields)


@pytest.mark.parametrize("rows", [2_000, 20_001])
@pytest.mark.parametrize("index", [0, 1_234, -1])
def test_the_first_invalid_row_is_named(pair, rows, index):
    """The first invalid row is named, however many rows there are, and no valid column is."""
    data: list[Any] = [[1, 1.5] for _ in range(rows)]
    data[index] = [1, SECRET]
    _, call, _ = pair("numbers")
    status, message = call.outcome(_text(split(["a", "b"], *data)))
    assert status == "INVALID_ARGUMENT"
    assert message is not None
    assert f"signature. b: dataframe_split.data[{index % rows}][1] is a string; must be double" in message


def test_errors_of_typed_calls_use_their_terms(pair):
    """Errors of typed calls have fields and rows in columns, and mention no JSON format."""
    typed = TypedCaller(pair("rows_part")[1].channel)
    assert "part.weight" not in str(typed.outcome("rows_part_predict", {"part": {"name": "a", "weight": 1.5}}))
    for method, fields, path in (
        ("rows_part_predict", {"part": {"name": "a"}}, "part.weight: "),
        ("rows_part_predict_batch", {"part": [{"name": "a", "weight": 1.5}, {"name": "a"}]}, "[1].part.weight: "),
    ):
        status, message = typed.outcome(method, fields)
        assert status == "INVALID_ARGUMENT"
        assert path in message
        assert "dataframe_" not in message


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("unnamed", inputs([[1, 2.5]])),
        ("numbers", inputs(5)),
        ("hint_str", inputs([5])),
        ("numbers", {"input": SECRET}),
    ],
)
def test_schema_details_can_be_hidden(pair, monkeypatch, name, payload):
    """MLFLOW_DISABLE_SCHEMA_DETAILS keeps the signature out of every refusal."""
    _, call, _ = pair(name)
    monkeypatch.setenv("MLFLOW_DISABLE_SCHEMA_DETAILS", "true")
    assert call.outcome(_text(payload)) == ("INVALID_ARGUMENT", "The payload does not fit the model.")
