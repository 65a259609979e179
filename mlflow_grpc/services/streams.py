"""Streams of requests, answered in their order.

Rule of this module: a stream takes no more than it can give back. So many requests are read ahead that batches fill,
but only once those before them have been let in; a caller that does not read its answers is not read from either.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message
from google.rpc import code_pb2

from mlflow_grpc.errors import CallerGaveUp, NotReady, ServingError
from mlflow_grpc.services.calls import SHUTDOWN, Call, as_serving_error, log_failed_request

READ_AHEAD = 128
"""How many requests of a stream may be in the server at a time: a batch of the usual size."""

Begin = Callable[[Any], Awaitable["asyncio.Future[Any]"]]
"""Lets a request in, when there is room for it, and gives what will be its answer."""


async def answer_each(
    requests: AsyncIterator[Any],
    call: Call,
    begin: Begin,
    message_of: Callable[[Any], Message],
    in_place: Callable[[ServingError], Message],
) -> None:
    """Writes an answer for each request, in their order.

    Args:
        requests: What is asked, as it comes.
        call: What they come with, and what the answers are written to.
        begin: Begins to answer one request; several are under way at a time.
        message_of: The message for an answer.
        in_place: What stands in the place of an answer that there is none of.

    Raises:
        NotReady: The server is draining: what had been read has been answered.
        CallerGaveUp: The deadline of the stream passed.

    """
    line = _Line(requests, begin)
    call.end_reading = line.end
    place = 0
    try:
        while (answered := await line.waiting.get()) is not None:
            try:
                message = message_of(await answered)
            except (NotReady, CallerGaveUp):
                raise
            except Exception as error:  # noqa: BLE001 - it stands in its place
                told = as_serving_error(error)
                log_failed_request(call, told, place)
                message = in_place(told)
            await call.write(message)
            line.room.release()
            place += 1
        if line.is_ended:
            raise NotReady(SHUTDOWN)
        await line.reading
    finally:
        line.reading.cancel()
        left = []
        while not line.waiting.empty():
            if (answered := line.waiting.get_nowait()) is not None:
                answered.cancel()
                left.append(answered)
        await asyncio.gather(line.reading, *left, return_exceptions=True)


class _Line:
    """The answers of a stream that wait to be written, in their order."""

    def __init__(self, requests: AsyncIterator[Any], begin: Begin) -> None:
        self.room = asyncio.Semaphore(READ_AHEAD)
        self.waiting: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self.is_ended = False
        self._requests = requests
        self._begin = begin
        self._holds_none = True  # Whether no request has been read that is not in the line yet.
        self.reading = asyncio.create_task(self._read())

    def end(self) -> None:
        """Has nothing more read; what has been read is answered."""
        self.is_ended = True
        if self._holds_none:
            self.reading.cancel()

    async def _read(self) -> None:
        """Reads requests, as long as there is room for their answers."""
        try:
            while not self.is_ended:
                await self.room.acquire()
                self.waiting.put_nowait(await self._next())
        except StopAsyncIteration:
            return
        finally:
            self.waiting.put_nowait(None)

    async def _next(self) -> "asyncio.Future[Any]":
        """The answer of the next request, once that has been let in."""
        try:
            request = await anext(self._requests)
            self._holds_none = False
            return await self._begin(request)
        except ServingError as error:
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed
        finally:
            self._holds_none = True


def error_message(kind: type[Message], error: ServingError) -> Message:
    """What a stream says of a request that has no answer, as a message of the type of `Output.Error`."""
    return kind(
        code=code_pb2.Code.Value(error.status.value),
        message=f"{error.message} {error.shown or ''}".rstrip(),
        reason=error.reason,
        error_class=error.error_class or "",
        field_violations=[{"field": each.field, "description": each.description} for each in error.violations],
    )
