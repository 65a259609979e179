"""payload/arrow: messages with any fault are refused, and never crash the process."""

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.arrow.incoming import IncomingTable
from mlflow_grpc.payload.arrow.messages import split_stream
from mlflow_grpc.payload.arrow.sizes import expanded_bytes
from mlflow_grpc.payload.arrow.values import plain_values
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
        assert "Arrow data cannot be read" in error.message or "takes more than 800000 bytes" in error.message


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


def test_sizes_count_what_is_shared():
    """Texts in a dictionary count as often as they occur, and each null takes a byte."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), pa.array(["x" * 1_000]))
    assert expanded_bytes(pa.record_batch({"x": texts})) >= 100_000
    assert expanded_bytes(pa.record_batch({"x": pa.nulls(10**6)})) == 10**6
