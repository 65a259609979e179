"""Services MLflow and MLflowStream: a string in, a string out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.errors import ServingError
from mlflow_grpc.services import doors
from mlflow_grpc.services.calls import Call, Calls
from mlflow_grpc.services.streams import answer_each, error_message

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers

CONTENT_TYPE_KEY = "mlflow-content-type"
NAME = "MLflow"
STREAM_NAME = "MLflowStream"


class TextServicer:
    """`rpc predict(Input) returns (Output)` of mlflow.proto."""

    async def predict(self, request: Any, call: Call) -> Message:
        """Answers one payload; see `Engine.predict` for the errors."""
        asked = call.engine.text(request.value, call.metadata(CONTENT_TYPE_KEY), call.ignored.add)
        return _output(
            await call.engine.predict(asked, time_remaining_s=call.context.time_remaining(), usage=call.usage)
        )


class StreamServicer:
    """The RPCs of service MLflowStream."""

    async def predict_many(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Answers each payload of a stream, in their order."""
        content_type = call.metadata(CONTENT_TYPE_KEY)

        def begin(request: Any) -> "Awaitable[asyncio.Future[Any]]":
            asked = call.engine.text(request.value, content_type, call.ignored.add)
            return call.engine.begin(asked, time_remaining_s=call.context.time_remaining(), usage=call.usage)

        await answer_each(requests, call, begin, _output, _failed)

    async def predict_stream(self, request: Any, call: Call) -> None:
        """Gives the parts of one answer; see `Engine.predict_stream` for the errors."""
        asked = call.engine.text(request.value, call.metadata(CONTENT_TYPE_KEY), call.ignored.add)
        async with aclosing(
            call.engine.predict_stream(asked, time_remaining_s=call.context.time_remaining(), usage=call.usage)
        ) as parts:
            async for text in parts:
                await call.write(_output(text))


_Error = protos.message_named("Output.Error")


def _output(text: str) -> Message:
    output: Message = protos.Output(value=text)
    return output


def _failed(error: ServingError) -> Message:
    output: Message = protos.Output(error=error_message(_Error, error))
    return output


def handlers(calls: Calls, catalog: Catalog) -> "tuple[Handlers, Handlers]":
    """The handlers of both services."""
    find = doors.named(catalog)
    one, many = doors.CallDoor(find), doors.StreamDoor(find)
    servicer = StreamServicer()
    return (
        calls.handlers(protos.service(NAME), TextServicer(), door=one, level=logging.INFO),
        calls.handlers(
            protos.service(STREAM_NAME),
            servicer,
            door={"predict_many": many, "predict_stream": one},
            level=logging.INFO,
        ),
    )
