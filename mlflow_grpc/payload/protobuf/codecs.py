"""What reads and writes the messages of one model's RPCs, put together.

Rule of this module: which RPC has which messages is decided here; how they are read and written is not.
"""

from collections.abc import Callable
from typing import Any

from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.payload.codec import RecordCodec
from mlflow_grpc.payload.protobuf.chunks import ChunkCodec
from mlflow_grpc.payload.protobuf.record import TypedCodec
from mlflow_grpc.payload.protobuf.rows import RowsCodec


class TypedCodecs:
    """The codecs of one model's typed RPCs."""

    def __init__(
        self, codec: RecordCodec, contract: Contract, messages: ModelMessages, class_of: Callable[[str], Any]
    ) -> None:
        """Args:
        codec: Takes records.
        contract: What the model takes and gives.
        messages: Its messages.
        class_of: Gives the class of a message by its name.
        """
        self.one = TypedCodec(codec, contract, messages, class_of(messages.output.name))
        self.chunks = self.one
        """Of the parts of an answer."""
        if messages.chunk is not None:
            self.chunks = ChunkCodec(codec, contract, messages, messages.chunk, class_of(messages.chunk.name))
        self.rows: RowsCodec | None = None
        """Of rows in columns, if the model takes them."""
        if messages.batch is not None:
            self.rows = RowsCodec(self.one, codec, messages.batch, class_of(messages.batch.outputs.name))
