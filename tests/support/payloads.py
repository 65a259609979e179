"""Payloads for parity tests: a table for all models, and a generator that uses a model's signature."""

import json
from typing import Any

from hypothesis import strategies as st
from mlflow.types import Schema, TensorSpec

SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2, 255, 256, 300, 2**31 - 1, 2**31, 2**40, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1,
    10**25, 0.0, -0.0, 1.0, 1.5, 0.1, 1e-320, 1e300, 3.4e38, 3.5e38, float("nan"), float("inf"), float("-inf"),
    "", "a", "1", "1.5", "1_000", "١", "true", "False", "nan", "None", "AQID", "AQ", "A", "not base64!", "é", "\u0000",
    "\ud800", "2021-01-01", "2021-01-01T00:00:00", "2021-01-01T00:00:00Z", "2021-01-01 10:00:00.123456789+02:00",
    "yesterday", "99999-01-01", [], [1, 2], [1.5, 2], ["a", "b"], [[1], [2, 3]], [None], {}, {"k": 1}, {"name": "n"},
    {"name": "n", "age": 3}, {"name": 1}, [{"name": "n", "zz": 1}], [{"role": "user", "content": "hi"}],
]  # fmt: skip

TEXTS = [
    "", " ", "nope", "null", "1", '"x"', "[]", "[1]", "{}", "{", '{"inputs":', '{"inputs": [1]} x', "\ufeff",
    '\ufeff{"inputs": [1.5]}', "\x00", '{"inputs": [1, 2,]}', '{"inputs": 01}', "{'inputs': [1]}",
    '{"inputs": "a\nb"}', '{"inputs": ["\\ud800"]}', '{"inputs": "\\ud83d\\ude00"}', '{"inputs": [1e999, -1e999]}',
    '{"inputs": [NaN, Infinity, -Infinity]}', '{"inputs": nan}', '{"inputs": [1], "inputs": [2.5]}',
    '{"dataframe_split": {"columns": ["a"], "data": [[1]], "columns": ["b"]}}',
    '{"inputs": [1], "instances": [1]}', '{"foo": 1}', '{"columns": ["a"], "data": [[1]]}',
    '{"inputs": [1.5], "foo": 3, "signature_name": "x"}', '{"inputs": []}', '{"instances": []}', '{"inputs": {}}',
    '{"instances": {}}', '{"inputs": null}', '{"instances": null}', '{"inputs": "hello"}', '{"inputs": 5}',
    '{"inputs": [[1, 2], [3, 4]]}', '{"instances": [[1, 2], [3, 4]]}', '{"inputs": [[1, 2], [3]]}',
    '{"instances": [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}]}', '{"instances": [{"a": 1, "b": [1]}, {"a": 2}]}',
    '{"instances": {"a": [1, 2], "b": [3]}}', '{"inputs": {"a": [1, 2], "b": [3]}}', '{"inputs": [{"a": 1}, {"b": 2}]}',
    '{"inputs": [{"a": 1}, 2]}', '{"dataframe_records": []}', '{"dataframe_records": {}}', '{"dataframe_records": 1}',
    '{"dataframe_records": [1, 2]}', '{"dataframe_records": [{"a": 1, "b": 2}, {"a": 3}]}',
    '{"dataframe_records": [{}]}', '{"dataframe_records": [{"a": {"x": 1}}]}', '{"dataframe_split": []}',
    '{"dataframe_split": {}}', '{"dataframe_split": {"data": []}}', '{"dataframe_split": {"data": [[1, 2]]}}',
    '{"dataframe_split": {"columns": ["a", "b"], "data": []}}', '{"dataframe_split": {"columns": ["a"], "data": [1]}}',
    '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}}',
    '{"dataframe_split": {"columns": ["a", "b"], "index": [5, 6], "data": [[1, "x"], [2.5, null]]}}',
    '{"dataframe_split": {"columns": ["a", "b"], "index": [5], "data": [[1, 2], [3, 4]]}}',
    '{"dataframe_split": {"columns": ["a", "b"], "foo": 1, "data": [[1, 2]]}}',
    '{"dataframe_split": {"columns": ["b", "a", "z"], "data": [[2, 1, 3]]}}',
    '{"dataframe_split": {"columns": ["a", "a", "b"], "data": [[1, 2, 3]]}}',
    '{"dataframe_split": {"columns": [{"k": 1}], "data": [[1]]}}', '{"dataframe_split": {"columns": 1, "data": [[1]]}}',
    '{"dataframe_split": {"columns": ["a", null], "data": [[1, 2]]}}', '{"dataframe_split": {"columns": "ab", "data": [[1, 2]]}}',
    '{"dataframe_split": {"data": {"a": [1]}}}', '{"dataframe_split": {"data": "x"}}', '{"dataframe_split": {"data": null}}',
    '{"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "stream": true}', '{"messages": null}',
    '{"messages": [{"role": "user", "content": "hi"}], "temperature": 2, "top_k": 5, "foo": 1}',
    '{"messages": [{"role": "user", "content": "hi"}], "temperature": 1, "top_k": "5"}',
    '{"messages": [1], "inputs": [1]}', '{"prompt": "x", "params": {"temperature": 1}}', '{"prompt": ["a", "b"]}',
    '{"prompt": "x", "temperature": 1}', '{"input": "x"}', '{"input": [{"role": "user", "content": "hi"}]}',
    '{"inputs": [1.5], "params": null}', '{"inputs": [1.5], "params": {}}', '{"inputs": [1.5], "params": [1]}',
    '{"inputs": [1.5], "params": "x"}', '{"inputs": [1.5], "params": {"unknown": 1}}',
    '{"inputs": [1.5], "params": {"temperature": 3, "top_k": 7}}', '{"inputs": [1.5], "params": {"temperature": "3"}}',
    '{"inputs": [1.5], "params": {"top_k": 3.5}}', '{"inputs": [1.5], "params": {"top_k": true, "flag": 1}}',
    '{"inputs": [1.5], "params": {"since": "2021-01-01"}}', '{"inputs": [1.5], "params": {"since": "2021-01-01T01:02:03Z"}}',
    '{"inputs": [1.5], "params": {"since": {"k": 1}}}', '{"inputs": [1.5], "params": {"since": 5}}',
    '{"inputs": [1.5], "params": {"stops": "a"}}', '{"inputs": [1.5], "params": {"stops": ["a", null, "b"]}}',
    '{"inputs": [1.5], "params": {"weights": [1, 2.5]}}', '{"inputs": [1.5], "params": {"weights": [[1]]}}',
    '{"inputs": [1.5], "params": {"top_k": 99999999999, "big": 9223372036854775808}}', '{"inputs": [1.5], "params": {"label": null}}',
    '{"inputs": ["a", "b"]}', '{"inputs": [1, 2.5, "a", null, true]}', '{"inputs": ["2021-01-01T00:00:00"]}', '{"inputs": ["AQID"]}',
    '{"inputs": ["A"]}', '{"inputs": [{"name": "n", "age": 3}]}', '{"inputs": [{"name": "n", "age": "3"}]}', '{"inputs": [{"name": "n"}]}',
    '{"inputs": [{"name": "n", "age": 3, "zz": 1, "addresses": [{"street": "s", "number": null}]}]}',
    '{"inputs": ' + "1" * 4000 + "}", '{"inputs": ' + "1" * 5000 + "}", "[" * 200_000, '{"a":' * 200_000,
    '{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"inputs": ' + "[" * 40 + "1" + "]" * 40 + "}",
    "\x00".join('{"inputs": [1.5]}') + "\x00", "\x00" + "\x00".join('{"inputs": [1.5]}'),
    "a,b\n1,2\n", "a,b\n1,x\n", "a\n1\n1.5\n", "q\nhello\n", "\n", "a,b\n1,2,3\n4,5,6,7\n", 'a\n"1\n',
]  # fmt: skip

CSV = [
    "a,b\n1,2\n", "b,a\n2,1\n", "a,b\n1,x\n", "a,b\n1.5,2.5\n", "a\n1\n", "a,b\n1,\n,2\n", "", "\n", "a,b\n", "a,b\n1,2,3\n4,5\n",
    "a,b\n1,2\n3,4,5,6\n", "\ufeffa,b\n1,2\n", 'a,b\n"1,2\n', "a,b\r\n1,2\r\n", "q\n00123\nNA\n", "q\nhello\n\nworld\n",
    "flag\ntrue\nFalse\n", "flag\nyes\n", "flag\n1\n0\n", "x,mask\n1,2\n", "text\na\n", "a;b\n1;2\n", "a,a,b\n1,2,3\n", "messages\nhi\n",
    "boolean,integer,long,float,double,string,binary,datetime\ntrue,1,2,1.5,2.5,s,AQID,2021-01-01\n", "1\n2\n", "prompt\nx\n",
    "need\n1.5\n", "need,may_long,may_string\n1.5,2,s\n", "need,may_long\n1.5,\n", "name,age\nn,3\n", "input\n2021-01-01T00:00:00\n",
]  # fmt: skip

CONTENT_TYPES = [
    "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "application/json; charset=latin-1",
    "application/json; something=something", "Application/JSON", "application/json;", "application/x-parquet", "text/plain", "text/csv",
    "text/csv; charset=utf-8", "text/csv; header=present", "application/vnd.apache.parquet", " application/json ", "application/json; Charset=utf-8",
    "application/octet-stream", "application/json, text/csv", "*/*", "x",
]  # fmt: skip


def _dumps(document: Any) -> str:
    return json.dumps(document)


_scalars = st.sampled_from(SCALARS) | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=8)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32) | st.integers(-100, 100),
    "double": st.floats(-1e6, 1e6) | st.floats() | st.integers(-(2**60), 2**60),
    "string": st.text(max_size=10),
    "binary": st.sampled_from(["AQID", "AA==", "", "aGVsbG8="]),
    "datetime": st.datetimes().map(str) | st.sampled_from(["2021-01-01", "1999-12-31T23:59:59.123456789"]),
}


def _cell(spec: Any) -> st.SearchStrategy[Any]:
    """Draws a cell that mostly fits the column, and sometimes does not."""
    if isinstance(spec, TensorSpec):
        plain: st.SearchStrategy[Any] = st.lists(st.floats(width=32) | st.integers(0, 9), min_size=2, max_size=2)
        plain = plain | st.integers(0, 255) | st.text(max_size=3)
    else:
        plain = _PLAIN.get(getattr(spec.type, "name", ""), _values)
    return st.integers(0, 9).flatmap(lambda dice: _values if dice == 0 else plain)


TABLES = ["dataframe_split", "dataframe_records", "inputs", "instances"]
"""Formats of tables."""


def _table(layout: str, names: list[Any], rows: list[list[Any]]) -> dict[str, Any]:
    """Returns a table as a payload in one of the formats."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    content = {
        "dataframe_split": {"columns": names, "data": rows},
        "dataframe_records": records,
        "inputs": {name: [row[index] for row in rows] for index, name in enumerate(names)},
        "instances": records,
    }
    return {layout: content[layout]}


@st.composite
def plain_payloads(draw: Any, schema: Schema) -> str:
    """Draws a table that fits the columns of a signature, sometimes except for one cell.

    In optional columns some values are missing.
    """
    specs: list[Any] = schema.inputs
    plain = st.tuples(*(_PLAIN[spec.type.name] for spec in specs)).map(list)
    rows = draw(st.lists(plain, min_size=1, max_size=4))
    for index, spec in enumerate(specs):
        if not spec.required and draw(st.integers(0, 9)) == 0:
            rows[0][index] = None
    if draw(st.integers(0, 3)) == 0:
        rows[-1][-1] = draw(_scalars)
    return _dumps(_table(draw(st.sampled_from(TABLES)), schema.input_names(), rows))


@st.composite
def payloads(draw: Any, schema: Schema | None) -> str:
    """Draws a JSON payload in one of MLflow's formats for a signature, and sometimes damages it."""
    specs = list(schema.inputs) if schema is not None else []
    names = [spec.name if spec.name is not None else str(index) for index, spec in enumerate(specs)] or ["a", "b"]
    cells = {name: _cell(spec) for name, spec in zip(names, specs, strict=False)} or {"a": _values, "b": _scalars}
    dice = draw(st.integers(0, 9))
    if dice == 0:
        names = draw(st.permutations([*names, "zz"]))
    elif dice == 1 and len(names) > 1:
        names = names[1:]
    rows = draw(st.integers(0, 4))
    table = [[draw(cells.get(name, _values)) for name in names] for _ in range(rows)]
    layout = draw(st.sampled_from([*TABLES, "list", "single", "llm", "odd"]))
    document: Any
    if layout in TABLES:
        document = _table(layout, names, table)
        if layout == "dataframe_split" and draw(st.booleans()):
            document["dataframe_split"]["index"] = draw(st.lists(_scalars, min_size=rows, max_size=rows))
    elif layout == "list":
        document = {draw(st.sampled_from(["inputs", "instances"])): [row[0] if len(row) == 1 else row for row in table]}
    elif layout == "single":
        document = {"inputs": [draw(cells.get(names[0], _values)) for _ in range(rows)]}
    elif layout == "llm":
        key = draw(st.sampled_from(["messages", "prompt", "input"]))
        document = {key: draw(_values), **(dict(zip(names, table[0], strict=True)) if table else {})}
    else:
        document = draw(_values | st.dictionaries(st.sampled_from(["inputs", "instances", "dataframe_split"]), _values))
    if isinstance(document, dict) and draw(st.integers(0, 3)) == 0:
        keys = st.sampled_from(["temperature", "top_k", "big", "flag", "label", "since", "stops", "weights", "zz"])
        document["params"] = draw(st.dictionaries(keys, _values, max_size=4))
    text = _dumps(document)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 19)) == 0 else text
