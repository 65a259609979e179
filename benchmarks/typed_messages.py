"""Messages of the typed RPCs of a model, from the server's reflection."""

import json
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "model_grpc_service.ModelgRPCService"
SINGLE, BATCH = "bench_predict", "bench_predict_batch"
"""RPCs of the model called bench."""


class TypedMessages:
    """Requests and answers of the RPC for the last payload: of a row, or of rows in columns."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Reads the messages by reflection."""
        self._service: Any = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(SERVICE)
        self._method = ""

    @property
    def path(self) -> str:
        """Returns the path of the method for the last payload."""
        return f"/{SERVICE}/{self._method}"

    def request(self, text: str) -> bytes:
        """Converts a payload to a message, of a row or of rows in columns."""
        table = json.loads(text)["dataframe_split"]
        rows = table["data"]
        self._method = SINGLE if len(rows) == 1 else BATCH
        message: Any = GetMessageClass(self._service.FindMethodByName(self._method).input_type)()
        # The fields are in the order of the columns, with names that are legal in protobuf.
        for index, field in enumerate(message.DESCRIPTOR.fields[: len(table["columns"])]):
            if self._method == SINGLE:
                setattr(message, field.name, rows[0][index])
            else:
                getattr(message, field.name).extend(row[index] for row in rows)
        data: bytes = message.SerializeToString()
        return data

    def predictions(self, raw: bytes) -> list[Any]:
        """Returns the predictions in the answer to the last payload."""
        answer: Any = GetMessageClass(self._service.FindMethodByName(self._method).output_type).FromString(raw)
        return [answer.prediction] if self._method == SINGLE else list(answer.prediction)
