"""pyarrow's tables as input and output of a model, by the DoExchange of Arrow Flight over the client's own channel.

Rule of this module: pyarrow is imported only for a caller that has imported it.
"""

import json
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from _mlflow_grpc_protocol.arrow_ipc import END_OF_STREAM, encapsulated, pieces_of, within
from _mlflow_grpc_protocol.flight_data import ENVELOPE_BYTES

from mlflow_grpc_client import _options, _wire
from mlflow_grpc_client._calls import Pause, Stream
from mlflow_grpc_client._payloads import jsonable, library
from mlflow_grpc_client.errors import PredictError, ResourceExhausted, Unavailable, failure

_OVERLOADED = "REQUEST_LIMIT_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Collect:
    """A step of a call: all answers of a stream, in a list."""

    stream: Stream


def is_table(data: Any) -> bool:
    """Returns True for a table and for a record batch of pyarrow."""
    return isinstance(data, (library("pyarrow", "Table"), library("pyarrow", "RecordBatch")))


def predict(
    table: Any,
    model: str,
    params: Mapping[str, Any] | None,
    timeout_s: float,
    metadata: _options.Metadata,
    max_bytes: int,
) -> Generator[Collect | Pause, Any, Any]:
    """The steps of a call with a table. The result is the table of predictions.

    The model predicts all rows together if they fit into a message, as it does for rows of any other type. A larger
    table is sent in as few batches as there can be, and the model predicts one batch at a time.

    A call that ends in UNAVAILABLE, or that an overloaded server refuses, is repeated as a whole.

    Args:
        table: A table or a record batch.
        model: `name` or `name/version`; empty for the default model.
        params: Params of the model.
        timeout_s: Timeout of the call in seconds.
        metadata: Metadata of the call.
        max_bytes: The connection's limit for a message in bytes; a negative number is no limit.

    Raises:
        TypeError: The table has dictionaries within lists, structs or maps.
        PredictError: The call failed.

    """
    plain, descriptor = _without_dictionaries(table), _descriptor(model, params)
    for pause_s in (*_options.RETRY_PAUSES_S, None):
        stream = Stream(
            _wire.DO_EXCHANGE,
            _messages(plain, descriptor, max_bytes),
            lambda message, _: message,
            _wire.FlightData,
            lambda message, _: message,
            timeout_s,
            metadata,
            model=model,
            is_paired=False,
        )
        try:
            return _table_of((yield Collect(stream)))
        except PredictError as error:
            if pause_s is None or not _is_temporary(error) or not (yield Pause(pause_s)):
                raise
    raise AssertionError  # The last pause is None.


def _is_temporary(error: PredictError) -> bool:
    is_refused = isinstance(error, ResourceExhausted) and error.reason == _OVERLOADED
    return isinstance(error, Unavailable) or is_refused


def _descriptor(model: str, params: Mapping[str, Any] | None) -> Any:
    if params is None:
        return _wire.FlightDescriptor(type=_wire.FlightDescriptor.PATH, path=model.split("/") if model else ())
    command = json.dumps({"model": model, "params": dict(params)}, default=jsonable)
    return _wire.FlightDescriptor(type=_wire.FlightDescriptor.CMD, cmd=command.encode())


def _without_dictionaries(table: Any) -> Any:
    """The table with the values of dictionary-encoded columns, because messages of batches have no dictionaries."""
    import pyarrow as pa

    from mlflow_grpc_client._dictionaries import decoded

    columns = []
    for column, name in zip(pa.table(table).columns, table.schema.names, strict=True):
        if pa.types.is_dictionary(column.type):
            chunks = column.chunks or [pa.array([], column.type)]
            columns.append(pa.chunked_array([decoded(chunk) for chunk in chunks]))
        elif _has_dictionary(column.type):
            raise TypeError(f"the column {name} has a dictionary within {column.type}: cast it to plain values")
        else:
            columns.append(column)
    return pa.table(columns, table.schema.names)


def _has_dictionary(arrow: Any) -> bool:
    import pyarrow as pa

    inner = (arrow.field(index).type for index in range(arrow.num_fields))
    return bool(pa.types.is_dictionary(arrow)) or any(map(_has_dictionary, inner))


def _messages(table: Any, descriptor: Any, max_bytes: int) -> Iterator[Any]:
    """The messages of a table: its schema, and its rows in one batch or in as few as fit the limit."""
    import pyarrow as pa

    header, _ = pieces_of(memoryview(table.schema.serialize()))
    yield _wire.flight_data(header, flight_descriptor=descriptor)
    limit = sys.maxsize if max_bytes < 0 else max_bytes - ENVELOPE_BYTES
    for combined in table.combine_chunks().to_batches():
        for batch in within(combined, limit, pa.ipc.get_record_batch_size):
            yield _wire.flight_data(*pieces_of(memoryview(batch.serialize())))


def _table_of(messages: list[Any]) -> Any:
    """The table in the messages of an answer.

    Raises:
        PredictError: The messages are not those of a table.

    """
    import pyarrow as pa

    pieces = [piece for message in messages for piece in encapsulated(message.data_header, message.data_body)]
    try:
        return pa.ipc.open_stream(b"".join([*pieces, END_OF_STREAM])).read_all()
    except (pa.ArrowException, OSError):
        message = "The bytes of the answer are not a table of Arrow."
        raise failure(grpc.StatusCode.INTERNAL, message) from None
