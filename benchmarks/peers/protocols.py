"""The protocols by which a model is called: a payload as bytes on the wire, and the predictions in the answer.

Rule of this module: it opens no connection. Payloads are JSON in MLflow's form dataframe_split.
"""

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from _mlflow_grpc_protocol.arrow_ipc import END_OF_STREAM, encapsulated, pieces_of

from benchmarks import inference
from benchmarks.typed_messages import TypedMessages
from mlflow_grpc import protos
from mlflow_grpc.calls.inference_models import RESPONSE
from mlflow_grpc.payload.tensors.datatypes import DATATYPES
from mlflow_grpc.services.flight_data import FlightData, flight_data

MODEL = "bench"
"""The name of the model on all servers that name their models."""


class Protocol(ABC):
    """One protocol, over gRPC or as JSON over HTTP."""

    is_grpc = True
    path: str
    """Path of the URL, after the port."""

    @abstractmethod
    def request(self, text: str) -> list[bytes]:
        """Converts a payload to the messages of a gRPC call, or to the body of an HTTP request."""

    @abstractmethod
    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the predictions in the messages, or in the body, of an answer."""


class Predict(Protocol):
    """The RPC predict of this project: JSON over gRPC."""

    path = "/MLflow/predict"

    def request(self, text: str) -> list[bytes]:
        """Returns the payload in one message."""
        return [protos.Input(value=text).SerializeToString()]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the predictions in the JSON text of the message."""
        return _predictions(protos.Output.FromString(answer[0]).value)


class Typed(Protocol):
    """The typed RPCs of a model of this project."""

    def __init__(self, messages: TypedMessages) -> None:
        self._messages = messages

    @property
    def path(self) -> str:  # type: ignore[override] # It depends on the number of rows.
        """Returns the path of the RPC for the last payload."""
        return self._messages.path

    def request(self, text: str) -> list[bytes]:
        """Returns one message with the columns."""
        return [self._messages.request(text)]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the predictions in the message."""
        return self._messages.predictions(answer[0])


class Tensors(Protocol):
    """The Open Inference Protocol over gRPC, with a raw tensor for each column."""

    path = inference.METHOD

    def request(self, text: str) -> list[bytes]:
        """Returns one message with the columns."""
        return [inference.request(text)]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the elements of the first tensor of the answer, which is raw or has fields."""
        response: Any = RESPONSE.FromString(answer[0])
        datatype = DATATYPES[response.outputs[0].datatype]
        if response.raw_output_contents:
            values: list[Any] = np.frombuffer(response.raw_output_contents[0], datatype.dtype).tolist()
            return values
        return list(getattr(response.outputs[0].contents, datatype.contents))


class Flight(Protocol):
    """Arrow Flight: an exchange of one record batch."""

    path = "/arrow.flight.protocol.FlightService/DoExchange"

    def request(self, text: str) -> list[bytes]:
        """Returns the message with the schema, and the one with the rows."""
        table = json.loads(text)["dataframe_split"]
        frame = pd.DataFrame(table["data"], columns=table["columns"])
        batch = pa.RecordBatch.from_pandas(frame, preserve_index=False)
        header, _ = pieces_of(memoryview(batch.schema.serialize()))
        descriptor = protos.message_named("arrow.flight.protocol.FlightDescriptor")
        first = FlightData(FlightData.MESSAGE(data_header=header, flight_descriptor=descriptor(type=1, path=[MODEL])))
        rows = flight_data(*pieces_of(memoryview(batch.serialize())), b"")
        return [first.SerializeToString(), rows.SerializeToString()]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the first column of the answer."""
        messages = [FlightData.FromString(message) for message in answer]
        pieces = [piece for message in messages for piece in encapsulated(message.data_header, message.data_body)]
        values: list[Any] = pa.ipc.open_stream(b"".join([*pieces, END_OF_STREAM])).read_all().column(0).to_pylist()
        return values


class Rest(Protocol):
    """The body and the answer of `mlflow models serve`."""

    is_grpc = False

    def __init__(self, path: str = "/invocations") -> None:
        self.path = path

    def request(self, text: str) -> list[bytes]:
        """Returns the payload unchanged."""
        return [text.encode()]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the predictions in the body."""
        return _predictions(answer[0])


class TensorsRest(Protocol):
    """The Open Inference Protocol over HTTP, with a tensor of JSON numbers for each column."""

    is_grpc = False
    path = f"/v2/models/{MODEL}/infer"

    def request(self, text: str) -> list[bytes]:
        """Returns the body with the columns."""
        table = json.loads(text)["dataframe_split"]
        columns = zip(table["columns"], zip(*table["data"], strict=True), strict=True)
        inputs = [
            {"name": name, "datatype": "FP64", "shape": [len(values), 1], "data": values} for name, values in columns
        ]
        return [json.dumps({"inputs": inputs}).encode()]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the elements of the first tensor of the body."""
        values: list[Any] = json.loads(answer[0])["outputs"][0]["data"]
        return values


class Rows(Protocol):
    """Rows of JSON numbers without names, and a list of predictions: an endpoint of BentoML that takes an array."""

    is_grpc = False
    path = "/predict"

    def request(self, text: str) -> list[bytes]:
        """Returns the body with the rows."""
        return [json.dumps({"input_data": json.loads(text)["dataframe_split"]["data"]}).encode()]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the body."""
        values: list[Any] = json.loads(answer[0])
        return values


def _predictions(text: str | bytes) -> list[Any]:
    values: list[Any] = json.loads(text)["predictions"]
    return values
