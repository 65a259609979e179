"""payload/arrow/writer.py: predictions of all types as columns, without a change of their values."""

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from mlflow_grpc.contract.mlflow_schema import contract_of
from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.arrow.writer import TableAnswer, TableWriter, as_schema
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec

PERSON = Object([Property("name", DataType.string), Property("age", DataType.long, required=False)])
MOMENT = datetime.datetime(2024, 2, 29, 12, 0, 0, 5)


def writer(*specs: Any, max_message_bytes: int = 10**6) -> TableWriter:
    """A writer for a model with these outputs; without any, for a model that declares none."""
    inputs = Schema([ColSpec(DataType.double, "x")])
    signature = ModelSignature(inputs, Schema(list(specs)) if specs else None)
    codec = ScoringCodec(Model(signature=signature), None)
    return TableWriter(codec, contract_of(signature.to_dict()), max_message_bytes)


def column_of(answer: TableAnswer) -> pa.Array:
    (column,) = answer.batch.columns
    return column


TYPES: list[tuple[Any, Any, pa.DataType, list[Any]]] = [
    (DataType.boolean, np.array([True, False]), pa.bool_(), [True, False]),
    (DataType.integer, np.array([1, -(2**31)], np.int32), pa.int32(), [1, -(2**31)]),
    (DataType.integer, np.array([1, 2], np.int64), pa.int32(), [1, 2]),
    (DataType.long, np.array([2**62, -1]), pa.int64(), [2**62, -1]),
    (DataType.long, np.array([1, 2], np.int8), pa.int64(), [1, 2]),
    (DataType.long, [1.0, 2], pa.int64(), [1, 2]),
    (DataType.float, np.array([0.1, 2], np.float32), pa.float32(), [float(np.float32(0.1)), 2.0]),
    (DataType.double, np.array([0.1, -0.0]), pa.float64(), [0.1, -0.0]),
    (DataType.double, [0.1, None], pa.float64(), [0.1, None]),
    (DataType.double, pd.Series([1.5, 2.5]), pa.float64(), [1.5, 2.5]),
    (DataType.double, np.array([[1.5], [2.5]]), pa.float64(), [1.5, 2.5]),
    (DataType.string, np.array(["a", "é"], dtype=object), pa.string(), ["a", "é"]),
    (DataType.string, np.array(["a", "b"]), pa.string(), ["a", "b"]),
    (DataType.binary, [b"\0\xff", b""], pa.binary(), [b"\0\xff", b""]),
    (DataType.datetime, [MOMENT, None], pa.timestamp("ns"), [pd.Timestamp(MOMENT), None]),
    (DataType.datetime, pd.Series([MOMENT, pd.NaT]), pa.timestamp("ns"), [pd.Timestamp(MOMENT), None]),
    (Array(DataType.long), [[1], []], pa.list_(pa.int64()), [[1], []]),
    (Map(DataType.double), [{"a": 1.5}, {}], pa.map_(pa.string(), pa.float64()), [[("a", 1.5)], []]),
    (AnyType(), [{"a": [1]}, "x"], pa.string(), ['{"a": [1]}', '"x"']),
    (
        PERSON,
        [{"name": "x", "age": 1}, {"name": "y"}],
        pa.struct([("age", pa.int64()), ("name", pa.string())]),
        [{"name": "x", "age": 1}, {"name": "y", "age": None}],
    ),
]


@pytest.mark.parametrize(("schema_type", "predictions", "arrow", "expected"), TYPES, ids=str)
@pytest.mark.parametrize("name", ["out", None])
def test_types(schema_type, predictions, arrow, expected, name):
    """A column has the type of the table of types, and the values of the predictions."""
    column = column_of(writer(ColSpec(schema_type, name) if name else ColSpec(schema_type)).encode(predictions, 2))
    assert (column.type, column.to_pylist()) == (arrow, expected)


def test_nan_stays_nan():
    """NaN is a value of a float, and no null."""
    column = column_of(writer(ColSpec(DataType.double)).encode(np.array([math.nan, 1.0]), 2))
    assert column.null_count == 0
    assert math.isnan(column[0].as_py())


@pytest.mark.parametrize(
    ("shape", "arrow"),
    [
        ((-1,), pa.float32()),
        ((-1, 2), pa.list_(pa.float32(), 2)),
        ((-1, -1), pa.list_(pa.float32())),
        ((-1, 2, 3), pa.list_(pa.list_(pa.float32(), 3), 2)),
        ((-1, -1, 3), pa.list_(pa.list_(pa.float32(), 3))),
    ],
    ids=str,
)
def test_tensors(shape, arrow):
    """An array has nested lists, of a fixed size where the signature has one; so have the same values as lists."""
    sizes = [2 if size == -1 else size for size in shape]
    array = np.arange(math.prod(sizes), dtype=np.float32).reshape(sizes)
    output = writer(TensorSpec(np.dtype(np.float32), shape))
    for predictions in (array, array.astype(np.float64)):
        column = column_of(output.encode(predictions, 2))
        assert (column.type, column.to_pylist()) == (arrow, array.tolist())


def test_tables_of_columns():
    """A DataFrame is matched by names, and a matrix by the order of the outputs."""
    output = writer(ColSpec(DataType.double, "a"), ColSpec(DataType.long, "b"))
    frame = pd.DataFrame({"b": [1, 2], "a": [0.5, 1.5]})
    rows = [{"a": 0.5, "b": 1}, {"a": 1.5, "b": 2}]
    for predictions in (frame, rows, [[0.5, 1], [1.5, 2]], {"a": [0.5, 1.5], "b": [1, 2]}):
        assert output.encode(predictions, 2).batch.to_pylist() == rows
    matrix = writer(ColSpec(DataType.double, "a"), ColSpec(DataType.double, "b"))
    assert matrix.encode(np.array([[1.0, 2.0], [3.0, 4.0]]), 2).batch.to_pydict() == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


@pytest.mark.parametrize(
    ("schema_type", "predictions"),
    [
        (DataType.long, [0.5]),
        (DataType.integer, np.array([2**31])),
        (DataType.float, np.array([0.1])),
        (DataType.double, [2**53 + 1]),
        (DataType.boolean, [1]),
        (DataType.string, [1]),
        (DataType.string, ["\ud800"]),
        (DataType.datetime, ["no time"]),
        (DataType.datetime, [datetime.datetime(9999, 1, 1)]),
        (Array(DataType.long), ["x"]),
        (PERSON, [{"name": "x", "other": 1}]),
        (PERSON, [5]),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_errors(schema_type, predictions):
    """A value that the column's type does not hold exactly is an error of the model, and never changed."""
    with pytest.raises(UnserializableOutput):
        writer(ColSpec(schema_type)).encode(predictions, 1)


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        (np.array([1, 2], np.uint8), [{"prediction": 1}, {"prediction": 2}]),
        (np.array([[1.5, 2.5]]), [{"prediction": [1.5, 2.5]}]),
        (pd.DataFrame({"a": [1], "b": [0.5]}), [{"a": 1, "b": 0.5}]),
        (pd.DataFrame({"a": ["x"], "b": [0.5]}), [{"a": "x", "b": 0.5}]),
        (["a", "b"], [{"prediction": "a"}, {"prediction": "b"}]),
        ([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        (np.array([1, 2], ">i4"), [{"prediction": 1}, {"prediction": 2}]),
        (np.array([[1.5], [2.5]], ">f8"), [{"prediction": [1.5]}, {"prediction": [2.5]}]),
        ([0.5, 3, True], [{"prediction": "0.5"}, {"prediction": "3"}, {"prediction": "true"}]),
        ([True, False, None], [{"prediction": True}, {"prediction": False}, {"prediction": None}]),
        ([{"a": [1, True]}, {"b": 2}], [{"a": "[1, true]", "b": None}, {"a": None, "b": 2}]),
        ([1, "x", None], [{"prediction": "1"}, {"prediction": '"x"'}, {"prediction": None}]),
        ({"answer": 5}, [{"answer": 5}]),
        ("text", [{"prediction": "text"}]),
    ],
    ids=str,
)
def test_undeclared_outputs(predictions, expected):
    """Without a declared output, columns have the types of the predictions or of their JSON."""
    assert writer().encode(predictions, 1).batch.to_pylist() == expected


def test_messages_have_a_limited_size():
    """Rows above the limit are split into batches below it; a single row is never split."""
    output = writer(ColSpec(DataType.double), max_message_bytes=1_000)
    answer = output.encode(np.arange(1_000.0), 1_000)
    assert all(len(body) <= 1_000 for _, body in answer.messages)
    assert pa.ipc.open_stream(answer.stream()).read_all().column(0).to_pylist() == list(range(1_000))
    text = writer(ColSpec(DataType.string), max_message_bytes=100).encode(["x" * 1_000, "y"], 2)
    assert len(text.messages) == 2


def test_later_answers_take_the_schema_of_the_first():
    """Exact values are cast, and others are an error."""
    schema = pa.schema([("a", pa.float64())])
    assert as_schema(pa.record_batch({"a": [1]}), schema).schema == schema
    for other in (pa.record_batch({"b": [1]}), pa.record_batch({"a": ["x"]}), pa.record_batch({"a": [2**53 + 1]})):
        with pytest.raises(UnserializableOutput):
            as_schema(other, schema)
