"""Arrow Flight, called by Arrow's own client, and by hand where that client makes no such message."""

import contextlib
import gc
import json
import resource
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from _mlflow_grpc_protocol.arrow_ipc import pieces_of
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array
from pyarrow import flight

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.payload.arrow.messages import split_stream
from tests.support.flight import descriptor, exchange
from tests.support.servers import InProcess, serving_models
from tests.support.tables import saved

FlightData, FlightDescriptor = (
    protos.message_named(f"arrow.flight.protocol.{name}") for name in ("FlightData", "FlightDescriptor")
)

GATE = threading.Event()
ENTERED = threading.Semaphore(0)


def double(frame: pd.DataFrame, params: Any = None) -> Any:
    if (frame["x"] == 666).any():
        raise ValueError("the model fails")
    if (frame["x"] == 777).any():
        ENTERED.release()
        assert GATE.wait(60)
    return (frame["x"] * 2).to_numpy()


def in_columns(frame: pd.DataFrame, params: Any = None) -> Any:
    return pd.DataFrame(
        {
            "text": [str(x) for x in frame["x"]],
            "list": [[x, x] for x in frame["x"]],
            "any": [{"x": x} for x in frame["x"]],
        }
    )


def by_value(frame: pd.DataFrame, params: Any = None) -> Any:
    return frame["x"].astype(int).to_numpy() if frame["x"].iloc[0] < 0 else frame["x"].to_numpy()


X = Schema([ColSpec(DataType.double, "x")])
DOUBLED = Schema([ColSpec(DataType.double, "doubled")])
COLUMNS = Schema([ColSpec(DataType.string, "text"), ColSpec(Array(DataType.double), "list"), ColSpec(AnyType(), "any")])
PARAMS = ParamSchema([ParamSpec("factor", DataType.double, 2.0)])

MODELS = {
    "double": (double, ModelSignature(X, DOUBLED)),
    "columns": (in_columns, ModelSignature(X, COLUMNS)),
    "undeclared": (by_value, ModelSignature(X)),
    "factor": (lambda frame, params=None: frame["x"].to_numpy() * params["factor"], ModelSignature(X, DOUBLED, PARAMS)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A server of all models, whose messages have at most 64 KiB."""
    configurations = [
        (
            ModelConfig(uri=str(saved(tmp_path_factory, name, *MODELS[name])), name=name, version="1", endpoint=True),
            None,
        )
        for name in MODELS
    ]
    with serving_models(configurations, max_message_bytes=65_536) as running:
        yield running


@pytest.fixture
def client(server: InProcess) -> Iterator[flight.FlightClient]:
    with flight.connect(f"grpc://{server.address}") as connected:
        yield connected


def xs(*values: float) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.float64())})


def test_batches_are_answered_in_order(client):
    """Each batch has its own answer, with its app_metadata, in the order of the batches."""
    answer, app_metadata = exchange(client, "double", xs(*range(100)), rows=7)
    assert answer.to_pydict() == {"doubled": [2.0 * x for x in range(100)]}
    assert app_metadata == [str(index).encode() for index in range(15)]


def test_answers_come_before_the_exchange_ends(client):
    """The schema and the answer to a batch can be read before the next batch is written."""
    writer, reader = client.do_exchange(descriptor("double"), flight.FlightCallOptions(timeout=30))
    with writer:
        writer.begin(pa.schema([("x", pa.float64())]))
        assert reader.schema == pa.schema([("doubled", pa.float64())])
        for x in (1.0, 2.0):
            writer.write_batch(pa.record_batch({"x": [x]}))
            assert reader.read_chunk().data.to_pydict() == {"doubled": [2 * x]}
        writer.write_metadata(b"only metadata")
        chunk = reader.read_chunk()
        assert (chunk.data, chunk.app_metadata.to_pybytes()) == (None, b"only metadata")
        writer.done_writing()
        with pytest.raises(StopIteration):
            reader.read_chunk()


def test_columns_of_declared_types(client):
    """Outputs have the types of the signature; a value of any type is JSON."""
    answer, _ = exchange(client, "columns", xs(1.5))
    assert answer.schema.types == [pa.string(), pa.list_(pa.float64()), pa.string()]
    assert answer.to_pylist() == [{"text": "1.5", "list": [1.5, 1.5], "any": '{"x": 1.5}'}]


def test_answers_without_a_declared_type(client):
    """The first answer decides on the schema; a later one that does not fit ends the exchange."""
    assert exchange(client, "undeclared", xs(1.5, 2.5))[0].to_pydict() == {"prediction": [1.5, 2.5]}
    answer, _ = exchange(client, "undeclared", xs(1.5, -3.0), rows=1)
    assert answer.to_pydict() == {"prediction": [1.5, -3.0]}  # The integer -3 is exact as a double.
    with pytest.raises(flight.FlightInternalError, match="has only one schema"):
        exchange(client, "undeclared", xs(-3.0, 1.5), rows=1)


def test_batches_without_rows(client):
    """An empty batch has an empty answer, without a call of the model."""
    for model, column in (("double", "doubled"), ("undeclared", "prediction")):
        writer, reader = client.do_exchange(descriptor(model), flight.FlightCallOptions(timeout=30))
        with writer:
            writer.begin(pa.schema([("x", pa.float64())]))
            for count in (0, 1, 0):
                writer.write_with_metadata(
                    pa.record_batch({"x": pa.array([1.0] * count, pa.float64())}), bytes([65 + count])
                )
            writer.done_writing()
            chunks = list(reader)
        assert sorted((chunk.data.num_rows, chunk.app_metadata.to_pybytes()) for chunk in chunks) == [
            (0, b"A"), (0, b"A"), (1, b"B"),
        ]  # fmt: skip
        assert chunks[0].data.schema.names == [column]
    assert exchange(client, "undeclared", xs())[0].num_columns == 0


def test_messages_without_a_table_wait_in_their_turn(client):
    """Before the schema of the answers is known, a message that has only app_metadata does not overtake a batch."""
    writer, reader = client.do_exchange(descriptor("undeclared"), flight.FlightCallOptions(timeout=30))
    with writer:
        writer.begin(pa.schema([("x", pa.float64())]))
        writer.write_with_metadata(pa.record_batch({"x": pa.array([], pa.float64())}), b"no rows")
        writer.write_metadata(b"no table")
        writer.write_with_metadata(pa.record_batch({"x": [1.0]}), b"a row")
        writer.done_writing()
        chunks = [(chunk.app_metadata.to_pybytes(), chunk.data) for chunk in reader]
    assert [(app_metadata, None if data is None else data.num_rows) for app_metadata, data in chunks] == [
        (b"no rows", 0), (b"no table", None), (b"a row", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["double", "undeclared"])
def test_what_waits_for_a_schema_is_limited(server, model):
    """Messages that cannot be answered yet are refused before they take more than the size of a message."""
    empty = _messages(pa.RecordBatch.from_pylist([], xs().schema))[1]
    waiting = FlightData(data_header=empty[0], data_body=empty[1], app_metadata=b"m" * 60_000)
    opening = [_first(model, SCHEMA)]
    if model == "double":  # Its answers have a schema, so they wait for the schema of the table only.
        path = FlightDescriptor(type=FlightDescriptor.PATH, path=[model])
        opening, waiting = [FlightData(flight_descriptor=path)], FlightData(app_metadata=b"m" * 60_000)
    status, details = _outcome(server, [*opening, waiting, waiting])
    assert status == "INVALID_ARGUMENT"
    assert "at most 65536 messages and 65536 bytes wait" in details


def test_the_metadata_names_the_model_of_an_empty_path(client):
    """As in other calls, the metadata mlflow-model names the model that a descriptor leaves open."""
    named = flight.FlightCallOptions(timeout=30, headers=[(b"mlflow-model", b"factor/1")])
    for nameless in (flight.FlightDescriptor.for_path(), flight.FlightDescriptor.for_command(json.dumps({}))):
        assert client.get_schema(nameless, named).schema == pa.schema([("x", pa.float64())])
    assert client.get_flight_info(flight.FlightDescriptor.for_path(), named).schema.names == ["doubled"]


def test_large_answers_are_split(client, server):
    """An answer above the limit of a message comes in several batches, each of them below it."""
    table = xs(*np.arange(7_000.0))
    answer, app_metadata = exchange(client, "columns", table)
    assert answer.column("text").to_pylist() == [str(float(x)) for x in range(7_000)]
    assert set(app_metadata) == {b"0"}
    assert len(app_metadata) > 1
    with grpc.insecure_channel(server.address, [("grpc.max_receive_message_length", 66_000)]) as channel:
        first, *rest = _messages(table)
        assert len(list(_stub(channel)(iter([_first("columns", first), *map(_data, rest)]), timeout=30))) > 2


def test_params(client):
    """The command of a descriptor has the params; the action `params` describes them."""
    assert exchange(client, "factor", xs(1.0), params={"factor": 3.0})[0].to_pydict() == {"doubled": [3.0]}
    assert exchange(client, "factor", xs(1.0))[0].to_pydict() == {"doubled": [2.0]}
    (result,) = client.do_action(flight.Action("params", b"factor"))
    assert [param["name"] for param in json.loads(result.body.to_pybytes())] == ["factor"]
    with pytest.raises(pa.ArrowInvalid, match="factor"):
        exchange(client, "factor", xs(1.0), params={"factor": "x"})


def test_schemas(client):
    """ListFlights and GetFlightInfo have the output schema and, in their app_metadata, the input schema."""
    flights = {b"/".join(info.descriptor.path).decode(): info for info in client.list_flights()}
    assert list(flights) == [f"{name}/1" for name in MODELS]
    info = client.get_flight_info(descriptor("double/1"))
    for described in (info, flights["double/1"]):
        assert described.schema == pa.schema([("doubled", pa.float64())])
        assert pa.ipc.read_schema(pa.py_buffer(described.app_metadata)) == pa.schema([("x", pa.float64())])
        assert described.endpoints == []
    assert client.get_schema(descriptor("columns")).schema == pa.schema([("x", pa.float64())])
    (only,) = client.list_flights(b"columns")
    assert only.descriptor.path == [b"columns", b"1"]


def test_actions_and_handshake(client):
    """The actions are listed; health is that of the health service; everybody may shake hands."""
    assert [action.type for action in client.list_actions()] == ["health", "params"]
    for name in (b"", b"double", b"double/1"):
        (result,) = client.do_action(flight.Action("health", name))
        assert json.loads(result.body.to_pybytes()) == {"status": "SERVING"}
    client.authenticate(_Anybody())


class _Anybody(flight.ClientAuthHandler):  # type: ignore[misc]  # pyarrow has no types
    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        outgoing.write(b"anybody")
        assert incoming.read() == b""

    def get_token(self) -> bytes:
        return b""


def test_what_the_server_does_not_have(client):
    """Calls for tables that a server keeps are UNIMPLEMENTED, with a reason; unknown models are NOT_FOUND."""
    with pytest.raises(NotImplementedError, match="keeps no tables to get"):
        client.do_get(flight.Ticket(b"x")).read_all()
    with pytest.raises(NotImplementedError, match="keeps no tables"):  # Raised as soon as the client reads it.
        client.do_put(descriptor("double"), xs().schema)[0].close()
    with pytest.raises(NotImplementedError, match=r"no such action. There are: health, params"):
        list(client.do_action("drop"))
    with pytest.raises(pa.ArrowKeyError, match="no such model"):
        exchange(client, "nobody", xs(1.0))
    with pytest.raises(pa.ArrowInvalid, match="several models"):
        exchange(client, "", xs(1.0))


def test_an_error_follows_the_answers_before_it(client):
    """The answers to the batches before a failed one arrive; then the exchange ends with its error."""
    writer, reader = client.do_exchange(descriptor("double"), flight.FlightCallOptions(timeout=30))
    writer.begin(pa.schema([("x", pa.float64())]))
    for x in (1.0, 2.0, 666.0, 3.0):
        writer.write_batch(pa.record_batch({"x": [x]}))
    writer.done_writing()
    assert [reader.read_chunk().data.column(0).to_pylist() for _ in range(2)] == [[2.0], [4.0]]
    with pytest.raises(flight.FlightInternalError):
        reader.read_chunk()


def test_a_deadline(client):
    """A deadline ends an exchange that waits for the model."""
    GATE.clear()
    with pytest.raises(flight.FlightTimedOutError):
        exchange(client, "double", xs(777.0), timeout=0.5)
    GATE.set()


def test_a_cancelled_exchange_frees_its_place(server, client):
    """After a caller has cancelled, the server keeps nothing of the exchange, and answers others."""
    GATE.clear()
    while ENTERED.acquire(blocking=False):
        pass
    writer, reader = client.do_exchange(descriptor("double"))
    writer.begin(pa.schema([("x", pa.float64())]))
    for _ in range(20):
        writer.write_batch(pa.record_batch({"x": [777.0]}))
    assert ENTERED.acquire(timeout=30)
    reader.cancel()
    GATE.set()
    entry = server.server.catalog.resolve("double")
    server.wait_until(lambda: entry.engine.admission.admitted_requests == 0)
    assert exchange(client, "double", xs(1.0))[0].to_pydict() == {"doubled": [2.0]}


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize("is_half_closed", [False, True])
def test_exchanges_may_be_cancelled_at_any_point(server, is_busy, is_half_closed):
    """The server keeps nothing of an exchange that is cancelled after any number of messages."""
    schema, batch = _messages(xs(777.0, 1.0))[:2]
    entry = server.server.catalog.resolve("double")
    with grpc.insecure_channel(server.address) as channel:
        for count in range(12):
            (GATE.clear if is_busy else GATE.set)()
            end, sent = threading.Event(), threading.Event()
            call = _stub(channel)(_messages_until(end, sent, schema, [batch] * count, is_open=not is_half_closed))
            assert sent.wait(30)
            if count and not is_busy:
                assert next(call)
            call.cancel()
            with contextlib.suppress(grpc.RpcError):  # Without one, the exchange ended before it was cancelled.
                list(call)
            end.set()
            GATE.set()
    admission = entry.engine.admission
    server.wait_until(lambda: admission.open_streams == admission.open_calls == admission.admitted_requests == 0)


def _messages_until(
    end: threading.Event, sent: threading.Event, schema: Any, batches: list[Any], *, is_open: bool
) -> Any:
    """Yields the messages of an exchange, and ends at once or with an event."""
    yield _first("double", schema)
    yield from map(_data, batches)
    sent.set()
    if is_open:
        assert end.wait(30)


def _messages(table: pa.Table | pa.RecordBatch, **options: Any) -> list[tuple[bytes, bytes]]:
    """Returns header and body of the messages of a table: schema, dictionaries, batches."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    return [(header, bytes(body)) for header, body in split_stream(sink.getvalue().to_pybytes())]


def _data(message: tuple[bytes, bytes]) -> Any:
    return FlightData(data_header=message[0], data_body=message[1])


def _first(model: str, message: tuple[bytes, bytes]) -> Any:
    return FlightData(
        flight_descriptor=FlightDescriptor(type=FlightDescriptor.PATH, path=[model]),
        data_header=message[0],
        data_body=message[1],
    )


def _stub(channel: grpc.Channel) -> Any:
    return channel.stream_stream(
        "/arrow.flight.protocol.FlightService/DoExchange",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=FlightData.FromString,
    )


def _outcome(server: InProcess, messages: list[Any]) -> tuple[str, str]:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        list(_stub(channel)(iter(messages), timeout=30))
    error: Any = caught.value
    return error.code().name, error.details()


SCHEMA, BATCH = _messages(xs(*range(500)))[:2]
COMPRESSED = _messages(xs(*[1.0] * 1_000), compression="zstd")[1]


def _long(position: int, value: int) -> tuple[bytes, bytes]:
    """Returns the compressed batch with another size of one of its decompressed buffers."""
    body = bytearray(COMPRESSED[1])
    body[position : position + 8] = value.to_bytes(8, "little", signed=True)
    return COMPRESSED[0], bytes(body)


def _of_nulls(rows: int) -> list[tuple[bytes, bytes]]:
    """Returns a batch with a declared number of nulls, which take no bytes."""
    return _messages(pa.table({"x": pa.nulls(rows)}))


def _of_one_long_text(rows: int) -> list[tuple[bytes, bytes]]:
    """Returns a batch whose texts are one text of 30 kB in a dictionary."""
    indices = pa.array(np.zeros(rows, np.int8))
    return _messages(pa.table({"x": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 30_000]))}))


FAULTS: dict[str, tuple[list[tuple[bytes, bytes]], str]] = {
    "no schema": ([BATCH], "the schema must be the first message"),
    "no flatbuffer": ([(b"\xff" * 64, b"")], "the header of a message is not valid"),
    "an empty flatbuffer": ([(b"\0" * 8, b"")], "the header of a message is not valid"),
    "a cut header": ([SCHEMA, (BATCH[0][:40], BATCH[1])], "the header of a message is not valid"),
    "a cut body": ([SCHEMA, (BATCH[0], BATCH[1][:-8])], "a buffer is not within the body"),
    "a batch of another schema": ([SCHEMA, _messages(pa.table({"x": ["a"], "y": [1]}))[1]], "other columns than its"),
    "another schema": ([SCHEMA, BATCH, SCHEMA], "there is a second schema"),
    "a decompressed size of 4 TiB": ([SCHEMA, _long(0, 2**42)], "takes more than 524288 bytes"),
    "a wrong decompressed size": ([SCHEMA, _long(0, 8_008)], "Arrow says that it is broken"),
    "a negative decompressed size": ([SCHEMA, _long(0, -5)], "declares no valid size"),
    "a billion nulls": (_of_nulls(10**9), "takes more than 524288 bytes"),
    "many small numbers": (
        _messages(pa.table({"x": np.zeros(70_000, np.int8)}), compression="zstd"),
        "takes more than 524288 bytes",
    ),
    "empty lists": (
        _messages(pa.table({"x": [1.0] * 9_000, "y": [[]] * 9_000}), compression="zstd"),
        "takes more than 524288 bytes",
    ),
    "a long text in a dictionary": (_of_one_long_text(1_000), "takes more than 524288 bytes|x has the Arrow type"),
    "a header of another type": ([SCHEMA, (SCHEMA[0].replace(b"\x01", b"\x05"), b"")], "cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(server, fault):
    """A broken message is INVALID_ARGUMENT with a reason, and takes no more memory than the limit."""
    messages, text = FAULTS[fault]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, details = _outcome(server, [_first("double", messages[0]), *map(_data, messages[1:])])
    assert status == "INVALID_ARGUMENT"
    assert any(option in details for option in text.split("|")), details
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # In KiB.


def test_offsets_out_of_bounds(server):
    """Offsets that point past the values of a column are refused before anybody reads there."""
    table = pa.table({"x": pa.array(["ab", "c"] * 500)})
    schema, (header, body) = _messages(table)[:2]
    offsets = bytearray(body)
    offsets[4:8] = (2**30).to_bytes(4, "little")
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        list(_stub(channel)(iter([_first("columns", schema), _data((header, bytes(offsets)))]), timeout=30))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_exchanges_without_messages(server):
    """An exchange without a message, or without a schema, says what is missing."""
    assert _outcome(server, []) == (
        "INVALID_ARGUMENT", "The exchange has no message. Begin it with a descriptor and a schema."
    )  # fmt: skip
    path = FlightDescriptor(type=FlightDescriptor.PATH, path=["double"])
    assert _outcome(server, [FlightData(flight_descriptor=path)]) == (
        "INVALID_ARGUMENT", "The exchange has no schema. Begin it with the schema of the table."
    )  # fmt: skip
    command = FlightDescriptor(type=FlightDescriptor.CMD, cmd=b"[]")
    status, details = _outcome(server, [FlightData(flight_descriptor=command)])
    assert (status, "must be a JSON object" in details) == ("INVALID_ARGUMENT", True)


def test_compressed_batches(client):
    """Batches with buffers compressed by LZ4 or Zstandard are read."""
    for compression in ("lz4", "zstd"):
        options = flight.FlightCallOptions(timeout=30, write_options=pa.ipc.IpcWriteOptions(compression=compression))
        writer, reader = client.do_exchange(descriptor("double"), options)
        with writer:
            writer.begin(xs().schema)
            writer.write_table(xs(*[1.5] * 1_000))
            writer.done_writing()
            assert reader.read_all().to_pydict() == {"doubled": [3.0] * 1_000}


def test_exchanges_leave_no_objects(client, server):
    """Nothing of an exchange stays in the server after it has ended."""

    def count() -> int:
        gc.collect()
        return sum(type(item).__name__ in ("Exchange", "TableRows", "IncomingTable") for item in gc.get_objects())

    exchange(client, "double", xs(1.0, 2.0), rows=1)
    server.wait_until(lambda: count() == 0)


def test_pieces_of_a_message():
    """A message that Arrow writes splits into its header and its body."""
    batch = pa.record_batch({"x": [1.0]})
    header, body = pieces_of(memoryview(batch.serialize()))
    assert _messages(pa.Table.from_batches([batch]))[1] == (header, bytes(body))
