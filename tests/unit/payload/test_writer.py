"""payload/protobuf/writer.py: no value is changed on its way into a message."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlflow_grpc import protos
from mlflow_grpc.contract import service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.types import AnyValue, Contract, DataType, Field, ListOf, MapOf, Record, Scalar, Tensor, Type
from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.protobuf.writer import fill
from tests.support.typed import plain


def written(data_type: Type, value: Any) -> Any:
    """Returns the content of a field of this type for a value."""
    maker = FileMaker()
    record = Record("out", [Field("x", data_type, required=isinstance(data_type, ListOf | MapOf))])
    messages = maker.add("m", Contract(Record("in", [Field("a", Scalar(DataType.LONG))]), record))
    service.add_service(maker.file, [messages])
    pool = protos.pool_with(maker.file)
    message: Any = protos.message_class(pool.FindMessageTypeByName(f"{PACKAGE}.{messages.output.name}"))()
    fill(message, messages.output, {"x": value}, "")
    assert message.SerializeToString() is not None
    return plain(message).get("x")


@pytest.mark.parametrize(
    ("data_type", "values"),
    [
        (DataType.INTEGER, [1, 2**31]),
        (DataType.LONG, [1, 2**63]),
        (DataType.LONG, [1, 2**70]),
        (DataType.STRING, ["a", "\ud800"]),
        (DataType.BOOLEAN, [True, 1]),
        (DataType.DOUBLE, [1.5, "2"]),
        (DataType.LONG, [1, None]),
    ],
)
def test_invalid_items_of_a_list_are_refused(data_type, values):
    """The error names the value, and nothing of a list that was written at once remains."""
    with pytest.raises(UnserializableOutput, match=r"x\[1\] has a"):
        written(ListOf(Scalar(data_type)), values)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else {}


def test_open_records_keep_values_without_a_field():
    """An open record keeps unknown keys and values that do not fit their field; a closed one refuses both."""
    value = {"x": 1, "words": ["a", None], "part": {"x": "one", "more": {"deep": [1.5]}}}
    fields = [Field("x", Scalar(DataType.LONG))]
    open_record = Record("part", list(fields), open=True)
    assert written(open_record, value) == {
        "x": 1,
        "extra": {"words": ["a", None], "part": {"x": "one", "more": {"deep": [1.5]}}},
    }
    nested = Record("whole", [*fields, Field("part", open_record)], open=True)
    assert written(nested, value) == {
        "x": 1,
        "part": {"extra": {"x": "one", "more": {"deep": [1.5]}}},
        "extra": {"words": ["a", None]},
    }
    with pytest.raises(UnserializableOutput):
        written(Record("closed", fields), value)


FLOATS, WIDE, BYTES = Tensor("float64", (-1, -1)), Tensor("uint64", (-1, -1)), Tensor("bytes", (-1, -1))
SMALL, TEXTS, BITS = Tensor("int8", (-1, -1)), Tensor("str", (-1, -1)), Tensor("bool", (-1, -1))


@pytest.mark.parametrize(
    ("data_type", "value", "expected"),
    [
        (Scalar(DataType.STRING), pd.Timestamp("2020-01-01T00:00:00.123456789"), "2020-01-01T00:00:00.123456789"),
        (Scalar(DataType.DATETIME), pd.NaT, None),
        (Scalar(DataType.DATETIME), np.datetime64("NaT", "ns"), None),
        (Scalar(DataType.LONG), pd.NA, None),
        (MapOf(Scalar(DataType.LONG)), {1: 2, "a": 3}, {"1": 2, "a": 3}),
        (MapOf(Scalar(DataType.LONG)), {True: 2, None: 3}, {"true": 2, "null": 3}),
        (AnyValue(), {False: None}, {"false": None}),
        (FLOATS, np.array([2**53, -(2**53)]), [2.0**53, -(2.0**53)]),
        (FLOATS, [1, 2.5], [1.0, 2.5]),
        (WIDE, np.array([2**64 - 1], dtype=np.uint64), [2**64 - 1]),
        (WIDE, np.array([1.0, 2.0]), [1, 2]),
        (SMALL, np.array([-128, 127]), [-128, 127]),
        (TEXTS, ["a\0", "b"], ["a\0", "b"]),
        (BYTES, [b"a\0", b"\xff"], [b"a\0", b"\xff"]),
        (BITS, [True, False], [True, False]),
        (AnyValue(), nested(48), nested(48)),
    ],
)
def test_exact_values_are_written(data_type, value, expected):
    """An exact value is written unchanged or in its JSON form; a null is not written."""
    content = written(data_type, value)
    assert (content["data"] if isinstance(data_type, Tensor) else content) == expected


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (FLOATS, np.array([2**53 + 1])),
        (FLOATS, np.array([2**64 - 1], dtype=np.uint64)),
        (FLOATS, [2**53 + 1, 1.0]),
        (FLOATS, [True, False]),
        (FLOATS, np.array([True])),
        (FLOATS, np.ma.array([1.0, 2.0], mask=[True, False])),
        (FLOATS, [[1.0], [1.0, 2.0]]),
        (Tensor("float32", (-1, -1)), np.array([0.1])),
        (WIDE, np.array([2.0**64])),
        (WIDE, np.array([-1])),
        (WIDE, np.array([np.nan])),
        (SMALL, np.array([128])),
        (BITS, [1.0, 0.0]),
        (BITS, np.array([1, 0])),
        (TEXTS, [1, "a"]),
        (TEXTS, np.array([1, 2])),
        (Scalar(DataType.STRING), "\ud800"),
        (Scalar(DataType.DATETIME), "2020-01-01T00:00:00.1234567891"),
        (Scalar(DataType.DATETIME), np.datetime64("10000-01-01")),
        (MapOf(Scalar(DataType.LONG)), {1: 2, "1": 3}),
        (AnyValue(), {True: 2, "true": 3}),
        (AnyValue(), {(1, 2): 3}),
        (AnyValue(), nested(49)),
    ],
)
def test_inexact_values_are_refused(data_type, value):
    """An inexact value is an error of the model."""
    with pytest.raises(UnserializableOutput):
        written(data_type, value)
