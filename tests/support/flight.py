"""Calls by Arrow's own Flight client."""

import contextlib
import json
from typing import Any

import pyarrow as pa
from pyarrow import flight


def descriptor(model: str, params: Any = None) -> flight.FlightDescriptor:
    """Returns the descriptor of a model, with params if there are any."""
    if params is None:
        return flight.FlightDescriptor.for_path(*model.split("/"))
    return flight.FlightDescriptor.for_command(json.dumps({"model": model, "params": params}))


def exchange(
    client: flight.FlightClient,
    model: str,
    table: pa.Table,
    *,
    rows: int | None = None,
    params: Any = None,
    **options: Any,
) -> tuple[pa.Table, list[bytes | None]]:
    """Sends a table, and returns the answer and the app_metadata of its batches.

    Args:
        client: The client.
        model: The model's name.
        table: The table.
        rows: Maximum number of rows in a batch.
        params: Params of the model.
        options: Of the call, such as a timeout in seconds.
    """
    call_options = flight.FlightCallOptions(**{"timeout": 60, **options})
    writer, reader = client.do_exchange(descriptor(model, params), call_options)
    try:
        writer.begin(table.schema)
        for index, batch in enumerate(table.to_batches(max_chunksize=rows)):
            writer.write_with_metadata(batch, str(index).encode())
        writer.done_writing()
        chunks = list(reader)
        schema = reader.schema
    finally:
        with contextlib.suppress(pa.ArrowException):  # The error of the exchange, which has been raised.
            writer.close()
    answer = pa.Table.from_batches([chunk.data for chunk in chunks], schema)
    return answer, [None if chunk.app_metadata is None else chunk.app_metadata.to_pybytes() for chunk in chunks]
