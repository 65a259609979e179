"""Streams of requests, answered in order.

Rule of this module: a stream takes no more than it can return. It reads ahead so that batches fill, but only after the
requests before have been admitted; a caller that does not read its answers is not read from either.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from google.protobuf.message import Message
from google.rpc import code_pb2

from mlflow_grpc.calls.log import log_failed_request
from mlflow_grpc.calls.open_calls import SHUTDOWN
from mlflow_grpc.errors import CallerDeadlineExceeded, NotReady, ResponseReadTimeout, ServingError
from mlflow_grpc.services.grpc_call import GrpcCall, Writable

READ_AHEAD = 128
"""Maximum number of requests of a stream in the server at a time: a batch of the usual size."""

MessageT = TypeVar("MessageT")
AnswerT = TypeVar("AnswerT")

Submit = Callable[[MessageT], Awaitable[asyncio.Future[AnswerT]]]
"""Admits a request once there is room for it, and returns its future answer."""


async def answer_in_order(
    requests: AsyncIterator[MessageT],
    call: GrpcCall,
    submit: Submit[MessageT, AnswerT],
    make_output: Callable[[AnswerT], Writable | Sequence[Writable]],
    make_error: Callable[[ServingError], Message],
    *,
    max_unread_s: float,
    read_ahead: int = READ_AHEAD,
) -> None:
    """Writes an answer for each request, in their order.

    Args:
        requests: The requests, as they arrive.
        call: The call that they belong to; answers are written to it.
        submit: Starts to answer one request; several are in progress at a time.
        make_output: Makes the message, or the messages, for an answer.
        make_error: Makes the message sent in place of a failed request's answer; the stream ends if it raises.
        max_unread_s: Maximum time that an answer waits for the caller to read it, in seconds. After it, the requests
            of the stream and their answers are dropped, and the stream ends once the caller reads on.
        read_ahead: Maximum number of requests of the stream in the server at a time.

    Raises:
        NotReady: The server is draining; the requests that were read have been answered.
        CallerDeadlineExceeded: The deadline of the stream passed.
        ResponseReadTimeout: An answer was not read in time.

    """
    loop, queue = asyncio.get_running_loop(), _ResponseQueue(requests, submit, read_ahead)
    call.on_drain(queue.stop_reading)
    index = 0
    try:
        while (answer := await queue.responses.get()) is not None:
            try:
                output = make_output(await answer)
            except (NotReady, CallerDeadlineExceeded):
                raise
            except Exception as error:  # noqa: BLE001 - sent in place of the answer
                serving_error = call.serving_error(error)
                output = make_error(serving_error)
                log_failed_request(call, serving_error, index)
            unread = loop.call_later(max_unread_s, queue.drop)
            try:
                for message in output if isinstance(output, Sequence) else (output,):
                    await call.write(message)
            finally:
                unread.cancel()
            if queue.is_dropped:
                raise ResponseReadTimeout(max_unread_s)
            queue.room.release()
            index += 1
        if queue.is_stopped:
            raise NotReady(SHUTDOWN)
        await queue.reader
    finally:
        unanswered = queue.drop()
        await asyncio.gather(queue.reader, *unanswered, return_exceptions=True)


class _ResponseQueue(Generic[MessageT, AnswerT]):
    """Answers of a stream that wait to be written, in order."""

    def __init__(self, requests: AsyncIterator[MessageT], submit: Submit[MessageT, AnswerT], read_ahead: int) -> None:
        self.room = asyncio.Semaphore(read_ahead)
        self.responses: asyncio.Queue[asyncio.Future[AnswerT] | None] = asyncio.Queue()
        self.is_stopped = self.is_dropped = False
        self._requests = requests
        self._submit = submit
        self._is_idle = True  # False from reading a request until its answer is in the queue.
        self.reader = asyncio.create_task(self._read())
        # Not in a `finally` of the reader: one that is cancelled before its first step runs none of its code.
        self.reader.add_done_callback(lambda _: self.responses.put_nowait(None))

    def stop_reading(self) -> None:
        """Stops reading; requests that were read are answered."""
        self.is_stopped = True
        if self._is_idle:
            self.reader.cancel()

    def drop(self) -> "list[asyncio.Future[AnswerT]]":
        """Stops reading, and drops the answers that have not been written; returns them."""
        self.is_dropped = True
        self.reader.cancel()
        unanswered = []
        while not self.responses.empty():
            if (answer := self.responses.get_nowait()) is not None:
                answer.cancel()
                unanswered.append(answer)
        return unanswered

    async def _read(self) -> None:
        try:
            while not self.is_stopped:
                await self.room.acquire()
                self.responses.put_nowait(await self._next())
        except StopAsyncIteration:
            return

    async def _next(self) -> "asyncio.Future[AnswerT]":
        """Reads a request and returns its future answer, once it has been admitted."""
        try:
            request = await anext(self._requests)
            self._is_idle = False
            return await self._submit(request)
        except ServingError as error:
            failed: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed
        finally:
            self._is_idle = True


def error_message(error_class: type[Message], error: ServingError) -> Message:
    """Makes the error of a failed request in a stream.

    Args:
        error_class: Class of a message with the fields of `Output.Error`.
        error: The error.

    """
    return error_class(
        code=code_pb2.Code.Value(error.status.value),
        message=error.text,
        reason=error.reason,
        error_class=error.error_class or "",
        field_violations=[violation.as_dict() for violation in error.violations],
    )
