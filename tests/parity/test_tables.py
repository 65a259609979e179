"""Arrow tables compared with the same rows as JSON: the model gets the same input to the bit."""

import base64
import datetime
import decimal
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import flight

from mlflow_grpc.choices import Batching
from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.parity.test_typed import in_any_order
from tests.parity.test_typed_batch import COLUMNS, FLOATS, INT64, as_json, echoed_rows, rows_of, several, split
from tests.support.flight import exchange
from tests.support.servers import Caller, serving_models

ARROW: dict[str, pa.DataType] = {
    "boolean": pa.bool_(), "integer": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64(),
    "string": pa.string(), "binary": pa.binary(), "datetime": pa.timestamp("ns"),
}  # fmt: skip

Served = Callable[[str], tuple[flight.FlightClient, str, Oracle]]


@pytest.fixture(scope="module", params=[pytest.param(Batching.AUTO, marks=pytest.mark.deep), Batching.ON, Batching.OFF])
def served(request, zoo_path) -> Iterator[Served]:
    """A Flight client of a model of the zoo that answers row by row, its name, and MLflow's own answer for it."""
    with ExitStack() as stack:
        clients: dict[str, tuple[flight.FlightClient, str, Oracle]] = {}

        def get(name: str) -> tuple[flight.FlightClient, str, Oracle]:
            if name not in clients:
                path = zoo_path(name if name.startswith("hint_") else f"rows_{name}")
                model = ModelConfig(uri=str(path), name=name, batching=request.param, endpoint=True)
                server = stack.enter_context(serving_models([(model, None)]))
                client = stack.enter_context(flight.connect(f"grpc://{server.address}"))
                clients[name] = (client, name, oracle_of(path))
            return clients[name]

        yield get


def same(served: Served, name: str, table: pa.Table, payload: dict[str, Any], params: Any = None) -> None:
    """Checks that the model gets the same input for the table and for the payload, which it returns for each row."""
    client, model, oracle = served(name)
    answer, _ = exchange(client, model, table, params=params)
    echoes = [in_any_order(_read(row)) for row in answer.to_pylist()]
    assert echoes == [in_any_order(row) for row in echoed_rows(oracle, payload)]


def _read(row: dict[str, Any]) -> Any:
    """Returns a row as the model returned it; values of several types come as JSON."""
    if row.keys() == {"prediction"}:
        return row["prediction"]
    return {
        name: json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value
        for name, value in row.items()
    }


@several
@given(rows_of({"a": INT64, "b": FLOATS}))
def test_numbers(served, rows):
    """Numbers are equal to the last bit, with NaN, infinities and -0.0."""
    same(served, "numbers", pa.table(rows, pa.schema([("a", pa.int64()), ("b", pa.float64())])), split(rows))


@several
@given(rows_of(COLUMNS))
def test_every_column(served, rows):
    """Columns of all scalar types get the answers that JSON gets."""
    table = pa.table(rows, pa.schema([(name, ARROW[name]) for name in rows]))
    same(served, "every_column", table, split({name: as_json(name, values) for name, values in rows.items()}))


@several
@given(rows_of({f"may_{name}": st.none() | strategy for name, strategy in COLUMNS.items()}))
def test_nulls(served, rows):
    """A null in Arrow is a null in JSON, and both are taken or refused alike."""
    need = [0.5] * len(rows["may_double"])
    schema = pa.schema([("need", pa.float64()), *((name, ARROW[name[4:]]) for name in rows)])
    payload = split({"need": need, **{name: as_json(name, values) for name, values in rows.items()}})
    client, model, oracle = served("optional")
    table = pa.table({"need": need, **rows}, schema)
    if oracle(json.dumps(payload), "application/json")[0] == 200:
        same(served, "optional", table, payload)
    else:
        with pytest.raises(pa.ArrowInvalid, match="may_"):
            exchange(client, model, table)


NARROW = [
    (pa.int8(), [-128, 127]),
    (pa.uint8(), [0, 255]),
    (pa.int16(), [-(2**15), 5]),
    (pa.uint16(), [2**16 - 1]),
    (pa.uint32(), [2**32 - 1]),
    (pa.int64(), [2**53, -(2**53)]),
    (pa.int64(), [2**53 + 1]),
    (pa.uint64(), [2**63 - 1, 7]),
    (pa.float16(), [1.5, -0.0]),
    (pa.float32(), [0.1, 3e38, float("nan")]),
    (pa.float64(), [0.1, None, 1e300]),
]


@pytest.mark.parametrize(("arrow", "values"), NARROW, ids=str)
def test_numbers_of_other_widths(served, arrow, values):
    """Any type of number in a column of doubles gives the answer of the same numbers in JSON."""
    array = pa.array(values, arrow)
    payload = split({"a": [1] * len(values), "b": array.to_pylist()})
    same(served, "numbers", pa.table({"a": pa.array([1] * len(values)), "b": array}), payload)


@pytest.mark.parametrize("arrow", [pa.int8(), pa.int16(), pa.int32(), pa.uint32()], ids=str)
def test_integers_of_other_widths(served, arrow):
    """Narrow integers in a column of longs are those of JSON."""
    same(
        served,
        "numbers",
        pa.table({"a": pa.array([1, 7], arrow), "b": [0.5, 1.5]}),
        split({"a": [1, 7], "b": [0.5, 1.5]}),
    )


def test_dictionaries(served):
    """A dictionary-encoded column is the column of its texts, with nulls."""
    texts = ["x", "y", "x", None, "é"]
    table = pa.table({"q": pa.array(texts).dictionary_encode()})
    same(served, "one_string", table, split({"q": texts}))
    large = pa.table({"q": pa.array(texts, pa.large_string())})
    same(served, "one_string", large, split({"q": texts}))


def test_dictionaries_with_null_among_their_values(served):
    """An entry of a dictionary that is null makes null of each row that refers to it."""
    indices = pa.array([0, 1, 0])
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["a", None]))
    same(served, "one_string", pa.table({"q": texts}), split({"q": ["a", None, "a"]}))
    numbers = pa.DictionaryArray.from_arrays(indices, pa.array([1.5, None]))
    rows: dict[str, list[Any]] = {"a": [1, 2, 3], "b": [1.5, None, 1.5]}
    same(served, "numbers", pa.table({"a": rows["a"], "b": numbers}), split(rows))


def test_views(served):
    """Texts and bytes as views, which polars makes, are the texts and bytes that they show, also in dictionaries."""
    texts = ["a", "b" * 20, None]
    views = pa.array(texts, pa.string_view())
    same(served, "one_string", pa.table({"q": views}), split({"q": texts}))
    dictionary = pa.DictionaryArray.from_arrays(pa.array([1, 0, 2]), views)
    same(served, "one_string", pa.table({"q": dictionary}), split({"q": [texts[1], texts[0], None]}))
    words = pa.array([[["a"], []], [["b" * 20]]], pa.list_(pa.list_(pa.string_view())))
    same(served, "nested", pa.table({"words": words}), split({"words": [[["a"], []], [["b" * 20]]]}))
    data = pa.array([b"ab", b"c" * 20], pa.binary_view())
    encoded = [base64.b64encode(value).decode() for value in (b"ab", b"c" * 20)]
    same(served, "optional", pa.table({"need": [1.0, 2.0], "may_binary": data}),
         split({"need": [1.0, 2.0], "may_binary": encoded}))  # fmt: skip


def test_slices(served):
    """Columns whose values begin in the middle of their buffers are the values of their rows."""
    name, columns, rows = STRUCTURES[0]
    table = pa.concat_tables([pa.table(columns)] * 2).combine_chunks()[1:3]
    same(served, name, table, split({column: [cells[1], cells[0]] for column, cells in rows.items()}))


MOMENT = datetime.datetime(2021, 3, 28, 1, 30, 0, 250_000)


@pytest.mark.parametrize(
    ("arrow", "value", "text"),
    [
        (pa.timestamp("s"), datetime.datetime(2021, 3, 28, 1, 30), "2021-03-28T01:30:00.000000000"),
        (pa.timestamp("ms"), MOMENT, "2021-03-28T01:30:00.250000000"),
        (pa.timestamp("us", "UTC"), MOMENT, "2021-03-28T01:30:00.250000000"),
        (pa.timestamp("ns", "+02:00"), MOMENT, "2021-03-28T01:30:00.250000000"),
        (pa.date32(), datetime.date(1969, 12, 31), "1969-12-31T00:00:00.000000000"),
        (pa.date64(), datetime.date(2021, 3, 28), "2021-03-28T00:00:00.000000000"),
    ],
    ids=str,
)
def test_points_in_time(served, arrow, value, text):
    """Timestamps of all units and zones are the same instants in UTC without a zone; a date is its midnight."""
    optional = {"need": [1.0, 2.0], "may_datetime": pa.array([value, None], arrow)}
    same(served, "optional", pa.table(optional), split({"need": [1.0, 2.0], "may_datetime": [text, None]}))


STRUCTURES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "structures",
        {
            "numbers": pa.array([[1.5, 2.0], []], pa.list_(pa.float64())),
            "person": [{"name": "x", "age": 3}, {"name": "y", "age": None}],
            "counts": pa.array([[("a", 1)], [("b", 2), ("c", 3)]], pa.map_(pa.string(), pa.int64())),
            "anything": ["t", None],
        },
        {
            "numbers": [[1.5, 2.0], []],
            "person": [{"name": "x", "age": 3}, {"name": "y", "age": None}],
            "counts": [{"a": 1}, {"b": 2, "c": 3}],
            "anything": ["t", None],
        },
    ),
    (
        "nested",
        {
            "words": pa.array([[["a"], []], [["b", "c"]]], pa.large_list(pa.list_(pa.string()))),
            "people": [[{"name": "x", "age": 1}], None],
        },
        {"words": [[["a"], []], [["b", "c"]]], "people": [[{"name": "x", "age": 1}], None]},
    ),
    ("named_list", {"vector": pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float64(), 2))}, {"vector": [[1.0, 2.0]] * 2}),
]


@pytest.mark.parametrize(("name", "columns", "rows"), STRUCTURES, ids=[name for name, _, _ in STRUCTURES])
def test_structures(served, name, columns, rows):
    """Lists, structs and maps, within each other, reach the model as from JSON."""
    same(served, name, pa.table(columns), split(rows))


def test_unnamed_columns(served):
    """Columns of a model that does not name them are matched by their order."""
    same(
        served, "unnamed", pa.table({"x": [1, 2], "y": [0.5, 1.5]}), {"dataframe_split": {"data": [[1, 0.5], [2, 1.5]]}}
    )
    same(served, "unnamed_one", pa.table({"any name": [0.5]}), {"dataframe_split": {"data": [[0.5]]}})


def test_tensors(served):
    """A tensor is a column of lists, or a table with a column for each of its own."""
    rows = [[1.0, 2.0], [3.0, 4.0], [5.5, 6.5]]
    lists = pa.array(rows, pa.list_(pa.float32(), 2))
    same(served, "tensor", pa.table({"x": lists}), {"inputs": rows})
    same(served, "tensor", pa.table({"x": pa.array(rows)}), {"inputs": rows})
    same(served, "tensor", pa.table({"a": [1.0, 3.0, 5.5], "b": [2.0, 4.0, 6.5]}), {"inputs": rows})
    same(served, "tensor_ints", pa.table({"x": pa.array([1, 255], pa.uint8())}), {"inputs": [1, 255]})
    named = {"x": rows, "mask": [1, 0, 2**40]}
    same(served, "tensors", pa.table({"x": pa.array(rows), "mask": named["mask"]}), {"inputs": named})


def test_lists_that_are_no_tensor(served):
    """Lists of other lengths than the tensor's are refused by name."""
    client, model, _ = served("tensor")
    with pytest.raises(pa.ArrowInvalid, match=r"value has null, or lists .* the shape \[2\]"):
        exchange(client, model, pa.table({"x": [[1.0, 2.0], [3.0]]}))


def test_params(served):
    """Params in the command of the descriptor are those of JSON."""
    params = {"temperature": 1.5, "stops": ["x", "y"], "top_k": 7}
    same(served, "params", pa.table({"a": [0.5, 1.5]}), {**split({"a": [0.5, 1.5]}), "params": params}, params)


def test_no_signature(served):
    """A model without a signature gets the table that JSON gives it."""
    rows: dict[str, list[Any]] = {"a": [1, 2], "b": ["x", None], "c": [[1.5], []]}
    same(served, "no_signature", pa.table({**rows, "c": pa.array(rows["c"], pa.list_(pa.float64()))}), split(rows))


@pytest.mark.parametrize("name", ["no_signature", "params_only"])
def test_rows_without_columns(served, name):
    """Rows of a table without columns are counted, as empty rows of JSON are."""
    rows = pa.RecordBatch.from_struct_array(pa.array([{}] * 3, pa.struct([])))
    same(served, name, pa.Table.from_batches([rows]), {"dataframe_split": {"columns": [], "data": [[], [], []]}})


def test_the_smallest_time_is_no_value(served):
    """The count that numpy takes for no point in time is null, and not the text NaT."""
    column = pa.array([-(2**63), 0]).view(pa.timestamp("ns"))
    table = pa.table({"t": column})
    same(served, "no_signature", table, split({"t": [None, "1970-01-01T00:00:00.000000000"]}))


HINTS: list[tuple[str, Any, list[Any]]] = [
    ("hint_str", pa.array(["a", ""]), ["a", ""]),
    ("hint_int", pa.array([1, 2**62]), [1, 2**62]),
    ("hint_float", pa.array([0.5, 1e300]), [0.5, 1e300]),
    ("hint_bytes", pa.array([b"\0\xff", b""]), [base64.b64encode(b"\0\xff").decode(), ""]),
    ("hint_dict", pa.array([{"a": 1, "b": None}, {"a": None, "b": 2}]), [{"a": 1}, {"b": 2}]),
    ("hint_person", pa.array([{"name": "x", "age": 1}]), [{"name": "x", "age": 1}]),
]


@pytest.mark.parametrize(("name", "column", "items"), HINTS, ids=[name for name, _, _ in HINTS])
def test_type_hints(served, name, column, items):
    """A column of any name is the list of a model with type hints."""
    client, model, oracle = served(name)
    answer, _ = exchange(client, model, pa.table({"items": column}))
    echoes = [json.loads(row["prediction"]) for row in answer.to_pylist()]  # The output is of any type, so it is JSON.
    assert [in_any_order(echo) for echo in echoes] == [
        in_any_order(row) for row in echoed_rows(oracle, {"inputs": items})
    ]


TWICE = pa.StructArray.from_arrays([pa.array(["x"]), pa.array([1]), pa.array([2])], ["name", "age", "age"])

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "numbers",
        {"a": [1], "b": pa.array([decimal.Decimal("1.5")])},
        "b has the Arrow type decimal128.*cast it to float64",
    ),
    ("numbers", {"a": [1], "b": ["x"]}, "b has the Arrow type string, and the model takes double"),
    ("numbers", {"a": [1]}, "lacks columns of the model: b"),
    ("one_string", {"q": [1]}, "q has the Arrow type int64, and the model takes string"),
    ("one_string", {"q": pa.array([datetime.time(1)])}, "q has the Arrow type time64"),
    ("one_boolean", {"flag": [1]}, "flag has the Arrow type int64, and the model takes bool"),
    ("numbers", {"a": [1, None], "b": [1.0, 2.0]}, "a"),
    ("unnamed", {"x": [1]}, "takes 2 columns without names"),
    ("numbers", {"a": [1], "b": pc.run_end_encode(pa.array([1.5]))}, "b has the Arrow type run_end_.*decode it"),
    ("numbers", {"a": [1], "b": pa.array([1], pa.int8()).cast(pa.bool8())}, "b has the Arrow type extension.*storage"),
    ("numbers", {"a": [1], "b": pa.array([[1]], pa.list_view(pa.int8()))}, "b has the Arrow type list_view.*to list"),
    ("no_signature", {"ok": [1], "data": [b"x"]}, "data has bytes, which have no JSON form"),
    ("optional", {"need": [1.0], "may_datetime": pa.array([5]).view(pa.date64())}, "may_datetime has .*to timestamp"),
    ("tensor", {"x": pa.array([1.0, None]), "y": pa.array([1.0, 2.0])}, "message: x has null.*fill it"),
    ("tensor_named", {"text": ["a", None]}, "text has null.*fill it"),
    (
        "structures",
        {"numbers": [[1.0]], "person": TWICE, "counts": [{"a": 1}]},
        "person has a struct with two fields age",
    ),
    ("structures", {"numbers": [["x"]], "person": [{"name": "x"}], "counts": [{"a": 1}]}, "numbers has the Arrow type"),
    ("structures", {"numbers": [[1.0]], "person": [{"name": 5}], "counts": [{"a": 1}]}, "person its field name has"),
]


@pytest.mark.parametrize(("name", "columns", "text"), REFUSED, ids=[text for _, _, text in REFUSED])
def test_refusals(served, name, columns, text):
    """A column that does not fit is INVALID_ARGUMENT, with its name, its type, and what to do."""
    client, model, _ = served(name)
    with pytest.raises(pa.ArrowInvalid, match=text):
        exchange(client, model, pa.table(columns))


def test_columns_of_one_name(served):
    """Two columns of one name are refused with the name."""
    client, model, _ = served("numbers")
    with pytest.raises(pa.ArrowInvalid, match="a is the name of two columns"):
        exchange(client, model, pa.table([[1], [2], [1.5]], names=["a", "a", "b"]))


def test_unknown_columns(served):
    """A column that the model does not have is ignored, as in JSON."""
    table = pa.table({"extra": ["x"], "a": [1], "b": [0.5]})
    same(served, "numbers", table, split({"a": [1], "b": [0.5]}))


def test_times_beyond_nanoseconds(served):
    """A year that nanoseconds do not reach is refused or taken as in JSON."""
    client, model, oracle = served("optional")
    moment = np.datetime64("9999-12-31T00:00:00", "s")
    payload = split({"need": [1.0], "may_datetime": [str(moment)]})
    table = pa.table({"need": [1.0], "may_datetime": pa.array([moment])})
    if oracle(json.dumps(payload), "application/json")[0] == 200:
        same(served, "optional", table, payload)
    else:
        with pytest.raises(pa.ArrowInvalid, match="may_datetime"):
            exchange(client, model, table)


def test_mlmodel_packages():
    """Records of an MLModel package get the outputs that they get as JSON; a null leaves a field out."""
    records: list[dict[str, Any]] = [
        {
            "name": "a",
            "born": "2020-02-29",
            "seen": "2024-01-01T00:00:00.000005Z",
            "parts": [{"weight": 1.5}],
            "count": 2,
        },
        {"name": "b", "born": "1999-12-31", "size": "large", "extra": {"k": 2**60}, "inputs": 0.5},
    ]
    table = pa.table(
        {
            "name": ["a", "b"],
            "born": ["2020-02-29", "1999-12-31"],
            "seen": pa.array([datetime.datetime(2024, 1, 1, 0, 0, 0, 5), None], pa.timestamp("us", "UTC")),
            "parts": pa.array([[{"weight": 1.5, "tags": None}], None]),
            "count": pa.array([2, None], pa.int8()),
            "size": pa.array([None, "large"]).dictionary_encode(),
            "extra": pa.array([None, [("k", 2**60)]], pa.map_(pa.string(), pa.int64())),
            "inputs": [None, 0.5],
        }
    )
    model = ModelConfig(class_path="tests.support.newer_models.Echo", endpoint=True)
    with serving_models([(model, None)]) as server, Caller(server.address) as call:
        with flight.connect(f"grpc://{server.address}") as client:
            answer, _ = exchange(client, "echo", table)
            with pytest.raises(pa.ArrowInvalid, match=r"\[1\].*weight"):
                exchange(client, "echo", table.set_column(3, "parts", pa.array([None, [{"weight": -1.0}]])))
        expected = json.loads(call(json.dumps({"dataframe_records": records})))["predictions"]
    rows = [
        dict(row, extra=dict(row["extra"]), seen=row["seen"] and row["seen"].isoformat()) for row in answer.to_pylist()
    ]
    as_json = [{**row, "seen": row["seen"] and row["seen"].replace("Z", "+00:00")} for row in expected]
    assert rows == as_json
