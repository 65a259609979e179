"""What Arrow tables need to know about one model: its schemas, its readers and its writer.

Rule of this module: it keeps nothing of a call.
"""

from typing import Any

import pyarrow as pa

from mlflow_grpc.contract.types import Contract
from mlflow_grpc.payload.arrow import types
from mlflow_grpc.payload.arrow.incoming import IncomingTable, TableRows
from mlflow_grpc.payload.arrow.reader import INPUT_NAME, TableReader
from mlflow_grpc.payload.arrow.writer import TableWriter
from mlflow_grpc.payload.codec import Codec, RecordCodec


class TableModel:
    """A model that takes and returns tables."""

    def __init__(self, codec: Codec, contract: Contract, max_message_bytes: int, *, has_hook: bool = False) -> None:
        """Finds the schemas.

        Args:
            codec: The model's codec.
            contract: The model's inputs, outputs and params.
            max_message_bytes: Size of a message above which an answer is split, in bytes.
            has_hook: True if a hook before the model looks at columns that the model does not have.

        """
        self._codec = codec
        self._contract = contract
        self._has_hook = has_hook
        self.writer = TableWriter(codec, contract, max_message_bytes)
        self.input_schema: pa.Schema | None = None
        """Columns that the model takes; None if its signature does not say so."""
        if contract.inputs is not None:
            with_zone = isinstance(codec, RecordCodec) and codec.timestamps_have_timezone
            fields = types.fields_of(contract.inputs, INPUT_NAME)
            self.input_schema = types.schema_of(fields, with_zone=with_zone)

    def read_stream(
        self, stream: bytes, max_message_bytes: int, params: dict[str, Any] | None = None
    ) -> tuple[TableReader, TableRows]:
        """Returns the rows of a complete stream, and what reads them.

        Args:
            stream: Schema and record batches.
            max_message_bytes: Maximum size of a message, in bytes.
            params: The params that the caller set; None if there are none.

        Raises:
            InvalidPayload: The stream is broken, or a column has a type that the model does not take.

        """
        incoming = IncomingTable(max_message_bytes)
        rows = incoming.add_stream(stream)
        return self.reader(incoming.schema, params), rows

    def reader(self, schema: pa.Schema, params: dict[str, Any] | None) -> TableReader:
        """Returns a reader for tables of a schema.

        Args:
            schema: Schema of the tables.
            params: The params that the caller set; None if there are none.

        Raises:
            InvalidPayload: A column has a type that the model does not take.

        """
        return TableReader(self._codec, self._contract, schema, params, as_records=not self._has_hook)
