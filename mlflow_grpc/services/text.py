"""Services MLflow and MLflowStream: a string in, a string out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from _mlflow_grpc_protocol.metadata import CONTENT_TYPE_KEY, MODEL_KEY
from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import TextRequest
from mlflow_grpc.errors import ServingError
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.streams import answer_in_order, error_message

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers

NAME = "MLflow"
STREAM_NAME = "MLflowStream"


class Input(Protocol):
    """Message `Input` of mlflow.proto."""

    value: str


class TextServicer:
    """The RPCs of mlflow.proto that call a model."""

    async def predict(self, message: Input, call: GrpcCall, engine: Engine) -> Message:
        """Answers one payload; raises the errors of `Engine.predict`."""
        return _output(await engine.predict(_request(message, call), call.deadline))

    async def predict_many(self, messages: AsyncIterator[Input], call: GrpcCall, engine: Engine) -> None:
        """Answers each payload of a stream, in order."""
        await answer_in_order(
            messages, call, lambda message: engine.submit(_request(message, call), call.deadline), _output, _error
        )

    async def predict_stream(self, message: Input, call: GrpcCall, engine: Engine) -> None:
        """Writes the chunks of one answer; raises the errors of `Engine.predict_stream`."""
        async with aclosing(engine.predict_stream(_request(message, call), call.deadline)) as chunks:
            async for text in chunks:
                await call.write(_output(text))


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

    servicer = TextServicer()
    return (
        dispatcher.model_service_handlers(protos.service(NAME), {"predict": servicer.predict}, model_from_metadata),
        dispatcher.model_service_handlers(
            protos.service(STREAM_NAME),
            {"predict_many": servicer.predict_many, "predict_stream": servicer.predict_stream},
            model_from_metadata,
        ),
    )
