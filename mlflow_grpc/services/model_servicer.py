"""RPCs that call a model: one request, a stream of requests, and an answer in chunks.

Rule of this module: it knows no message types. A service says how its messages become requests, and answers messages.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from google.protobuf.message import Message

from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import AnswerT, Request
from mlflow_grpc.errors import ServingError
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.streams import answer_in_order

MessageT = TypeVar("MessageT")


class ModelServicer(Generic[MessageT, AnswerT]):
    """RPCs for one type of request message."""

    def __init__(
        self,
        make_request: Callable[[MessageT, GrpcCall], Request[AnswerT]],
        make_output: Callable[[AnswerT], Message],
        make_error: Callable[[ServingError], Message],
    ) -> None:
        """Serves messages of one type.

        Args:
            make_request: Makes a request from a message.
            make_output: Makes the output message from an answer, or from a chunk of it.
            make_error: Makes the output message sent in place of a failed request's answer.

        """
        self._make_request = make_request
        self._make_output = make_output
        self._make_error = make_error

    async def predict(self, message: MessageT, call: GrpcCall, engine: Engine) -> Message:
        """Answers one message; raises the errors of `Engine.predict`."""
        return self._make_output(await engine.predict(self._make_request(message, call), call.deadline))

    async def predict_many(self, messages: AsyncIterator[MessageT], call: GrpcCall, engine: Engine) -> None:
        """Answers each message of a stream, in order."""
        await answer_in_order(
            messages,
            call,
            lambda message: engine.submit(self._make_request(message, call), call.deadline),
            self._make_output,
            self._make_error,
            max_unread_s=engine.max_unread_s,
        )

    async def predict_stream(self, message: MessageT, call: GrpcCall, engine: Engine) -> None:
        """Writes the chunks of one answer; raises the errors of `Engine.predict_stream`."""
        async with aclosing(engine.predict_stream(self._make_request(message, call), call.deadline)) as chunks:
            async for chunk in chunks:
                await call.write(self._make_output(chunk))
