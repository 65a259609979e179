"""Services MLflow and MLflowStream: a string in, a string out."""

from typing import TYPE_CHECKING, Protocol

from _mlflow_grpc_protocol.metadata import CONTENT_TYPE_KEY, MODEL_KEY
from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.requests import TextRequest
from mlflow_grpc.errors import ServingError
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.model_servicer import ModelServicer
from mlflow_grpc.services.streams import error_message

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers

NAME = "MLflow"
STREAM_NAME = "MLflowStream"


class Input(Protocol):
    """Message `Input` of mlflow.proto."""

    value: str


_ErrorMessage = protos.message_named("Output.Error")


def _request(message: Input, call: GrpcCall) -> TextRequest:
    return TextRequest(message.value, call.metadata(CONTENT_TYPE_KEY), call)


def _output(text: str) -> Message:
    output: Message = protos.Output(value=text)
    return output


def _error(error: ServingError) -> Message:
    output: Message = protos.Output(error=error_message(_ErrorMessage, error))
    return output


def handlers(dispatcher: RpcDispatcher, catalog: Catalog) -> "tuple[Handlers, Handlers]":
    """Makes the handlers of both services."""

    def model_from_metadata(call: GrpcCall) -> Entry:
        return catalog.resolve(call.metadata(MODEL_KEY))

    servicer = ModelServicer(_request, _output, _error)
    return (
        dispatcher.model_service_handlers(protos.service(NAME), {"predict": servicer.predict}, model_from_metadata),
        dispatcher.model_service_handlers(
            protos.service(STREAM_NAME),
            {"predict_many": servicer.predict_many, "predict_stream": servicer.predict_stream},
            model_from_metadata,
        ),
    )
