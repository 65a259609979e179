"""Parts of an answer into messages of their own.

Rule of this module: a part is what it is in JSON, which is all that MLflow says of the parts of an answer.
"""

import json
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from mlflow_grpc.contract.shapes import MessageShape, ModelMessages
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.payload.codec import ModelInput, RecordCodec
from mlflow_grpc.payload.protobuf.record import TypedCodec
from mlflow_grpc.payload.protobuf.values import as_unwritable
from mlflow_grpc.payload.protobuf.writer import fill

_BARE = ModelInput(None, bare_answer=True)


class ChunkCodec(TypedCodec):
    """Reads the input messages of one model and writes those of the parts of its answers."""

    def __init__(
        self,
        codec: RecordCodec,
        contract: Contract,
        messages: ModelMessages,
        chunk: MessageShape,
        chunk_class: type[ProtoMessage],
    ) -> None:
        """Args:
        codec: Takes records, and writes answers as JSON.
        contract: What the model takes and gives.
        messages: Its messages.
        chunk: The message of a part.
        chunk_class: Of that message.
        """
        super().__init__(codec, contract, replace(messages, output=chunk), chunk_class)
        self._only_field = chunk.fields[0].name if [field.source.name for field in chunk.fields] == [""] else None

    def encode(self, predictions: Any) -> ProtoMessage:
        """The message for one part.

        Raises:
            UnwritableAnswer: It has no form in JSON, or its fields have values of other types.

        """
        part = json.loads(self._codec.encode(predictions, _BARE))
        message = self._output_class()
        with as_unwritable():
            fill(message, self._messages.output, part if self._only_field is None else {self._only_field: part}, "")
        return message
