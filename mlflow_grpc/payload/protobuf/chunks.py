"""Conversion of the chunks of a streamed answer into messages.

Rule of this module: the message of a chunk is made from its JSON, because MLflow defines no other form of chunks.
"""

import json
from dataclasses import replace
from typing import Any

from _mlflow_grpc_protocol.shapes import MessageShape
from google.protobuf.message import Message as ProtoMessage

from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.payload.codec import ModelInput, RecordCodec
from mlflow_grpc.payload.protobuf.record import TypedCodec
from mlflow_grpc.payload.protobuf.values import as_unwritable
from mlflow_grpc.payload.protobuf.writer import fill

_BARE = ModelInput(None, bare_answer=True)


class ChunkCodec(TypedCodec):
    """Reads input messages of one model, and writes messages of the chunks of its answers."""

    def __init__(
        self,
        codec: RecordCodec,
        contract: Contract,
        messages: ModelMessages,
        chunk: MessageShape,
        chunk_class: type[ProtoMessage],
    ) -> None:
        """Uses the message of a chunk instead of the output message.

        Args:
            codec: Codec that takes records and writes answers as JSON.
            contract: Input and output types of the model.
            messages: Shapes of the model's messages.
            chunk: Shape of the message of a chunk.
            chunk_class: Class of the message of a chunk.

        """
        super().__init__(codec, contract, replace(messages, output=chunk), chunk_class)
        sole = chunk.sole_unnamed_field
        self._only_field = sole.name if sole is not None else None

    def encode(self, predictions: Any) -> ProtoMessage:
        """Makes the message of one chunk.

        Raises:
            UnserializableOutput: JSON has no such value, or a field has a value of another type.

        """
        chunk = json.loads(self._codec.encode(predictions, _BARE))
        message = self._output_class()
        with as_unwritable():
            fill(message, self._messages.output, chunk if self._only_field is None else {self._only_field: chunk}, "")
        return message
