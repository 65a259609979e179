"""The codecs of one model's typed RPCs.

Rule of this module: it decides which RPC uses which messages. The codecs read and write them.
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
        """Makes the codec of each RPC.

        Args:
            codec: Codec that takes records.
            contract: Input and output types of the model.
            messages: Shapes of the model's messages.
            class_of: Returns the class of a message by its name.

        """
        self.record = TypedCodec(codec, contract, messages, class_of(messages.output.name))
        """Codec for one record."""
        self.chunks = self.record
        """Codec for one record whose answer is streamed in chunks."""
        if messages.chunk is not None:
            self.chunks = ChunkCodec(codec, contract, messages, messages.chunk, class_of(messages.chunk.name))
        self.rows: RowsCodec | None = None
        """Codec for many rows in columns; None if the model has no RPC for them."""
        if messages.batch is not None:
            self.rows = RowsCodec(self.record, codec, messages.batch, class_of(messages.batch.outputs.name))
