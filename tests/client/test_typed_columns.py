"""Columns of numpy, pandas and pyarrow in typed batches, compared with the same rows as dicts."""

import asyncio
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_grpc_client import AsyncClient, Client
from mlflow_grpc_client._typed import columns
from mlflow_grpc_client._typed.answer_columns import columns_in

from mlflow_grpc.contract.types import Contract, DataType, Record, Scalar, Tensor
from mlflow_grpc.contract.types import Field as Column
from tests.client.test_typed_values import WireModel
from tests.support.depth import examples

KINDS = {
    "x": DataType.DOUBLE,
    "f": DataType.FLOAT,
    "n": DataType.LONG,
    "i": DataType.INTEGER,
    "b": DataType.BOOLEAN,
    "s": DataType.STRING,
    "d": DataType.BINARY,
}
ARROW = {
    "x": pa.float64(), "f": pa.float32(), "n": pa.int64(), "i": pa.int32(), "b": pa.bool_(), "s": pa.string(),
    "d": pa.binary(),
}  # fmt: skip
LARGE = {"s": pa.large_string(), "d": pa.large_binary()}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.integers(0, 40_000).map("ä".__mul__)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "x": st.floats(allow_nan=False),
    "f": st.floats(width=32, allow_nan=False),
    "n": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300),
    "i": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 127),
    "b": st.booleans(),
    "s": TEXT,
    "d": st.binary(max_size=300),
}


@pytest.fixture(scope="module")
def optional() -> WireModel:
    """A model of optional columns of all scalar types."""
    fields = [Column(name, Scalar(data_type), required=False) for name, data_type in KINDS.items()]
    return WireModel(Contract(Record("input", fields), Record("output", fields)))


@pytest.fixture(scope="module")
def tensor() -> WireModel:
    fields = [Column("v", Tensor("float64", (-1, 2))), Column("n", Tensor("int64", (-1, 3)))]
    return WireModel(Contract(Record("input", fields), Record("output", fields)))


ROWS = st.lists(st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}), min_size=1)


@settings(max_examples=examples(60), deadline=None)
@given(rows=ROWS, before=st.integers(0, 3))
def test_columns_of_arrow(optional, rows, before):
    """Columns of Arrow, also within a larger table, in chunks, of large and dictionary types, equal their rows."""
    expected = optional.batch(rows)
    padded = [rows[0]] * before + rows
    table = pa.table({name: pa.array([row[name] for row in padded], ARROW[name]) for name in KINDS})
    variants = [table, pa.concat_tables([table.slice(0, before + 1), table.slice(before + 1)])]
    large = {name: table.column(name).cast(LARGE[name]) if name in LARGE else table.column(name) for name in KINDS}
    variants.append(pa.table({**large, "s": table.column("s").dictionary_encode()}))
    variants.append(pa.table(large))
    for variant in variants:
        assert optional.batch(variant.slice(before)) == expected
        named = columns.NamedColumns({name: variant.column(name).slice(before) for name in KINDS})
        assert optional.batch(named) == expected


@settings(max_examples=examples(60), deadline=None)
@given(rows=st.lists(st.fixed_dictionaries(VALUES), min_size=1))
def test_columns_of_numpy(optional, rows):
    """Arrays, also those with gaps between numbers or another order of bytes, equal their rows."""
    expected = optional.batch(rows)
    dtypes: dict[str, Any] = {"x": "f8", "f": "f4", "n": "i8", "i": "i4", "b": "?", "s": object, "d": object}
    arrays = {name: np.array([row[name] for row in rows], dtypes[name]) for name in KINDS}
    gaps = {name: np.repeat(array, 2)[::2] for name, array in arrays.items()}
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    for variant in (arrays, gaps, swapped):
        assert optional.batch(columns.NamedColumns(variant)) == expected


@settings(max_examples=examples(60), deadline=None)
@given(rows=ROWS)
def test_answers_in_columns(optional, rows):
    """The columns of an answer have the values of its rows, with a mask or None where a row has no value."""
    message, shape = optional.batch(rows), optional.batch_rpc.request
    values_of = columns_in(message, shape)
    as_rows = columns.rows_of(message, shape)
    for name, values in values_of.items():
        values_in_rows = [row[name] for row in as_rows]
        assert (values.tolist() if isinstance(values, np.ndarray) else values) == values_in_rows
        assert isinstance(values, np.ndarray) == (name not in ("s", "d"))
        assert np.ma.isMaskedArray(values) == (name not in ("s", "d") and None in values_in_rows)


def test_a_tensor(tensor):
    """A tensor of all rows is sent from an array, and read into one of the same shape."""
    arrays = {"v": np.arange(8.0).reshape(4, 2)[::2], "n": np.arange(-3, 3).reshape(2, 3)}
    message = tensor.batch(columns.NamedColumns(arrays))
    assert message == tensor.batch([{name: array[row] for name, array in arrays.items()} for row in range(2)])
    for name, array in columns_in(message, tensor.batch_rpc.request).items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"i": np.array([1, 2**31])}, r"i\[1\]: 2147483648 is not within"),
        ({"b": np.array([1, 0])}, "b: an array of int64 does not fit, the model takes bool"),
        ({"x": pa.array([1, 2**53 + 1])}, r"x\[1\]: 9007199254740993 is not a float"),
        ({"x": np.zeros(2), "n": np.zeros(3, int)}, "different numbers of values: x has 2, n has 3"),
        ({"x": np.zeros(2), "y": np.zeros(2)}, "y: there is no such field"),
        ({"s": pa.array([b"a", b"\xff"]).view(pa.string())}, "'utf-8' codec can't decode"),
        ({"x": np.ma.masked_equal([1.0, 2.0], 2.0)}, "x: the array has masked values"),
    ],
)
def test_columns_that_do_not_fit(optional, values, message):
    """A column that cannot be sent is refused with its name, and the row if one is at fault."""
    with pytest.raises((TypeError, ValueError), match=message):
        optional.batch(columns.NamedColumns(values))


def test_calls(iris):
    """Both clients answer to columns and tables in columns, as to rows; no rows make no call."""
    names = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
    frame = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], columns=names)
    forms = [frame, pa.Table.from_pandas(frame), {name: frame[name].to_numpy() for name in names}]
    with Client(iris.address) as client:
        model = client.model("iris")
        for form in forms:
            (answers,) = model.predict_columns(form).values()
            assert list(answers) == model.predict(frame) == ["setosa", "virginica"]
        assert model.predict(forms[1]).column(0).to_pylist() == ["setosa", "virginica"]
        assert [list(column) for column in model.predict_columns(frame[:0]).values()] == [[]]
        with pytest.raises(TypeError, match="float is not rows: give a dict of columns, a table or an array"):
            model.predict_columns(1.5)

    async def asynchronous() -> Any:
        async with AsyncClient(iris.address) as client:
            return await client.model("iris").predict_columns(forms[2])

    (answers,) = asyncio.run(asynchronous()).values()
    assert list(answers) == ["setosa", "virginica"]
