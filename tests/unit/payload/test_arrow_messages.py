"""payload/arrow: messages with any fault are refused, and never crash the process."""

import time
from collections import deque
from typing import Any

import pyarrow as pa
import pytest
from _mlflow_grpc_protocol.arrow_ipc import pieces_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc.contract.mlflow_schema import contract_of
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.arrow.incoming import MAX_DEPTH, IncomingTable
from mlflow_grpc.payload.arrow.messages import split_stream
from mlflow_grpc.payload.arrow.reader import TableReader
from mlflow_grpc.payload.arrow.sizes import expanded_bytes
from mlflow_grpc.payload.arrow.values import plain_values
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support.depth import examples

ROWS = 50
TABLE = pa.table(
    {
        "double": pa.array([1.0, None] * ROWS),
        "dictionary": pa.array(["x", "y"] * ROWS).dictionary_encode(),
        "list": pa.array([[1], None] * ROWS),
        "pair": pa.array([[1.0, 2.0], None] * ROWS, pa.list_(pa.float64(), 2)),
        "text": pa.array(["ab", ""] * ROWS),
        "struct": [{"x": 1, "y": "q"}, None] * ROWS,
        "map": pa.array([[("a", 1)], None] * ROWS, pa.map_(pa.string(), pa.int64())),
        "boolean": [True, None] * ROWS,
        "nothing": pa.nulls(2 * ROWS),
        "time": pa.array([1, None] * ROWS, pa.timestamp("ms", "UTC")),
        "date": pa.array([1, None] * ROWS, pa.date32()),
        "bytes": pa.array([b"a", b""] * ROWS),
        "view": pa.array(["a text of many letters", None] * ROWS, pa.string_view()),
    }
)


def stream_of(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


STREAMS = [stream_of(TABLE, compression=compression) for compression in (None, "lz4", "zstd")]
MESSAGES = [[(header, bytes(body)) for header, body in split_stream(stream)] for stream in STREAMS]
REASONS = ("Arrow data cannot be read", "takes more than 800000 bytes", "has values that are not valid for")
NUMBERS = st.sampled_from([0, 1, -1, 7, 1000, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63)])


@st.composite
def broken(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Draws the messages of a stream of which one has other bytes or ends too early."""
    messages = [list(message) for message in draw(st.sampled_from(MESSAGES))]
    message, index = draw(st.sampled_from(messages)), draw(st.integers(0, 1))
    data = bytearray(message[index])
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        width = draw(st.sampled_from([1, 4, 8]))
        position -= position % width
        value = draw(NUMBERS) % 2 ** (8 * width)
        data[position : position + width] = value.to_bytes(width, "little")[: max(len(data) - position, 0)]
    message[index] = bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 9)) == 0 else bytes(data)
    return [(header, body) for header, body in messages]


@settings(max_examples=examples(400), deadline=None)
@given(broken())
def test_any_fault_is_refused_or_harmless(messages):
    """A stream with a fault is refused, or all of its values can be read."""
    incoming = IncomingTable(100_000)
    try:
        for header, body in messages:
            if (rows := incoming.add(header, body)) is not None:
                for column in rows.read().columns:
                    assert len(plain_values(column)) == rows.count
    except InvalidPayload as error:
        assert any(text in error.message for text in REASONS), error.message


def test_messages_and_streams_are_read():
    """The rows are those of the table, from single messages and from a complete stream, with any compression."""
    for messages, stream in zip(MESSAGES, STREAMS, strict=True):
        incoming = IncomingTable(100_000)
        *_, rows = (incoming.add(header, body) for header, body in messages)
        assert rows is not None
        together = IncomingTable(100_000).add_stream(stream)
        assert rows.read().to_pydict() == together.read().to_pydict() == TABLE.to_pydict()


def test_streams_of_several_batches_are_one():
    """The batches of a complete stream become one, with dictionaries that differ."""
    sink = pa.BufferOutputStream()
    tables = [pa.table({"x": pa.array(texts).dictionary_encode()}) for texts in (["a", "b"], ["c", "a"])]
    with pa.ipc.new_stream(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    rows = IncomingTable(100_000).add_stream(sink.getvalue().to_pybytes())
    assert (rows.count, rows.read().column("x").to_pylist()) == (4, ["a", "b", "c", "a"])


def _of_many_texts(first: int, *, within_list: bool) -> pa.Table:
    """Returns a table with 100 different texts in a dictionary whose indices count to 127."""
    texts = pa.array([f"text {first + index}" for index in range(100)])
    column = pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), texts)
    lists = pa.ListArray.from_arrays(pa.array([0, 100], pa.int32()), column)
    return pa.table({"x": lists if within_list else column, "y": pa.nulls(1 if within_list else 100)})


@pytest.mark.parametrize("within_list", [False, True])
def test_dictionaries_that_are_too_large_together(within_list):
    """Batches of one stream may have more texts together than the indices of one can count, except within lists."""
    sink = pa.BufferOutputStream()
    tables = [_of_many_texts(first, within_list=within_list) for first in (0, 100)]
    with pa.ipc.new_stream(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    rows = IncomingTable(100_000).add_stream(sink.getvalue().to_pybytes())
    if within_list:
        with pytest.raises(InvalidPayload, match=r"x has dictionaries .* use indices of int32"):
            rows.read()
    else:
        assert rows.read().column("x").to_pylist() == [f"text {index}" for index in range(200)]


def test_deltas_and_replacements_of_dictionaries():
    """A later dictionary replaces an earlier one or is added to it, as its message says."""
    for deltas in (False, True):
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        sink = pa.BufferOutputStream()
        tables = [
            pa.table({"x": pa.DictionaryArray.from_arrays(indices, pa.array(texts))})
            for indices, texts in (([0, 1], ["a", "b"]), ([2, 0], ["a", "b", "c"]))
        ]
        with pa.ipc.new_stream(sink, tables[0].schema, options=options) as writer:
            for table in tables:
                writer.write_table(table)
        incoming = IncomingTable(100_000)
        rows = [incoming.add(header, body) for header, body in split_stream(sink.getvalue().to_pybytes())]
        values = [batch.read().column("x").to_pylist() for batch in rows if batch is not None]
        assert values == [["a", "b"], ["c", "a"]]


def test_additions_to_dictionaries_are_limited(monkeypatch):
    """Each addition to a dictionary counts with its header, and their number is limited until one replaces them."""
    sink = pa.BufferOutputStream()
    tables = [
        pa.table({"x": pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(texts))})
        for indices, texts in (([0], ["a"]), ([1], ["a", "b"]))
    ]
    with pa.ipc.new_stream(
        sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    ) as writer:
        for table in tables:
            writer.write_table(table)
    schema, dictionary, batch, addition, _ = split_stream(sink.getvalue().to_pybytes())
    incoming = IncomingTable(1_000)
    incoming.add(*schema)
    with pytest.raises(InvalidPayload, match="takes more than 8000 bytes"):
        deque((incoming.add(*message) for message in [addition] * 100), maxlen=0)
    monkeypatch.setattr("mlflow_grpc.payload.arrow.incoming.MAX_DICTIONARIES", 3)
    incoming = IncomingTable(1_000)
    for message in (schema, dictionary, addition, addition, dictionary, addition, addition):
        incoming.add(*message)
    rows = incoming.add(*batch)
    assert rows is not None
    assert rows.read().column("x").to_pylist() == ["a"]
    with pytest.raises(InvalidPayload, match="more than 3 messages"):
        incoming.add(*addition)


def test_sizes_count_what_is_shared():
    """Texts in a dictionary count as often as they occur."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), pa.array(["x" * 1_000]))
    assert expanded_bytes(pa.record_batch({"x": texts})) >= 100_000


def test_views_count_as_often_as_they_show_their_bytes():
    """Views of the same bytes take as much as the texts that they show, in a dictionary too."""
    text = "x" * 1_000
    views = pa.array([text, None], pa.string_view())
    assert 1_000 <= expanded_bytes(pa.record_batch({"x": views})) <= 1_100
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), views)
    assert expanded_bytes(pa.record_batch({"x": dictionary})) >= 100_000


def test_rows_without_columns_count():
    """Rows without columns are limited in number, as each of them becomes an object."""
    rows = pa.RecordBatch.from_struct_array(pa.array([{}] * 13, pa.struct([])))
    (schema, _), (header, body) = split_stream(stream_of(pa.Table.from_batches([rows])))
    incoming = IncomingTable(100)
    incoming.add(schema, b"")
    batch = incoming.add(header, body)
    assert batch is not None
    with pytest.raises(InvalidPayload, match="takes more than 800 bytes"):
        batch.read()


@pytest.mark.parametrize("arrow", [pa.null(), pa.struct([]), pa.list_(pa.float64(), 0)], ids=str)
def test_values_without_bytes_count_as_objects(arrow):
    """A message of any number of nulls, empty lists or empty structs has few bytes, and each of them is an object."""
    rows = pa.nulls(1_000) if pa.types.is_null(arrow) else pa.array([() if arrow.num_fields else {}] * 1_000, arrow)
    assert expanded_bytes(pa.record_batch({"x": rows})) == 64_000


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 2_000])
def test_deep_types(depth):
    """Types deeper than Arrow reads are refused with the name of the column."""
    arrow = pa.float64()
    for _ in range(depth - 1):
        arrow = pa.struct([("inner", arrow)])
    header, _ = pieces_of(memoryview(pa.schema([("deep", arrow)]).serialize()))
    if depth <= MAX_DEPTH:
        assert IncomingTable(100).add(header, b"") is None
    else:
        with pytest.raises(InvalidPayload, match="cannot be read" if depth > 1_000 else "deep is nested more than 64"):
            IncomingTable(100).add(header, b"")


def test_files_are_not_streams():
    """The format of Arrow's files is refused with the format to use."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    with pytest.raises(InvalidPayload, match=r"pyarrow\.ipc\.new_stream"):
        IncomingTable(100_000).add_stream(sink.getvalue().to_pybytes())


def test_thousands_of_columns_are_matched_quickly():
    """The time to match columns grows with their number, and not with its square."""
    names = [f"column_{index}" for index in range(10_000)]
    signature = ModelSignature(Schema([ColSpec(DataType.double, name) for name in names]))
    codec = ScoringCodec(Model(signature=signature), None)
    schema = pa.schema([(name, pa.float64()) for name in reversed(names)])
    contract = contract_of(signature.to_dict())
    began = time.thread_time()
    TableReader(codec, contract, schema)
    assert time.thread_time() - began < 2  # It was 10 s, and is 0.1 s.
