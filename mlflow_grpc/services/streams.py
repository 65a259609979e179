"""Streams of requests, answered in their order.

Rule of this module: a stream takes no more than it can give back. So many requests are read ahead that batches fill; a
caller that does not read its answers is not read from either.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message
from google.rpc import code_pb2

from mlflow_grpc.errors import CallerGaveUp, NotReady, ServingError
from mlflow_grpc.services.calls import SHUTDOWN, Call, as_serving_error, log_failed_request

READ_AHEAD = 128
"""How many requests of a stream may be in the server at a time: two batches of the usual size."""

_END = None


async def answer_each(
    requests: AsyncIterator[Any],
    call: Call,
    answer: Callable[[Any], Awaitable[Message]],
    in_place: Callable[[ServingError], Message],
) -> None:
    """Writes an answer for each request, in their order.

    Args:
        requests: What is asked, as it comes.
        call: What they come with, and what the answers are written to.
        answer: Answers one request; several are answered at a time.
        in_place: What stands in the place of an answer that there is none of.

    Raises:
        NotReady: The server is draining: what came before has been answered.
        CallerGaveUp: The deadline of the stream passed.

    """
    room = asyncio.Semaphore(READ_AHEAD)
    line: asyncio.Queue[asyncio.Future[Message] | None] = asyncio.Queue()
    reading = asyncio.create_task(_read(requests, answer, room, line))
    call.end_reading = reading.cancel
    place = 0
    try:
        while (answered := await line.get()) is not _END:
            try:
                message = await answered
            except (NotReady, CallerGaveUp):
                raise
            except Exception as error:  # noqa: BLE001 - it stands in its place
                told = as_serving_error(error)
                log_failed_request(call, told, place)
                message = in_place(told)
            await call.write(message)
            room.release()
            place += 1
        await asyncio.wait({reading})
        if reading.cancelled():
            raise NotReady(SHUTDOWN)
        reading.result()
    finally:
        reading.cancel()
        left = []
        while not line.empty():
            if (waiting := line.get_nowait()) is not _END:
                waiting.cancel()
                left.append(waiting)
        await asyncio.gather(reading, *left, return_exceptions=True)


async def _read(
    requests: AsyncIterator[Any],
    answer: Callable[[Any], Awaitable[Message]],
    room: asyncio.Semaphore,
    line: "asyncio.Queue[asyncio.Future[Message] | None]",
) -> None:
    """Reads requests as long as there is room for their answers."""
    try:
        while True:
            await room.acquire()
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            except ServingError as error:
                failed = asyncio.get_running_loop().create_future()
                failed.set_exception(error)
                line.put_nowait(failed)
                continue
            line.put_nowait(asyncio.ensure_future(answer(request)))
    finally:
        line.put_nowait(_END)


def error_message(kind: type[Message], error: ServingError) -> Message:
    """What a stream says of a request that has no answer, as a message of the type of `Output.Error`."""
    return kind(
        code=code_pb2.Code.Value(error.status.value),
        message=error.message,
        reason=error.reason,
        error_class=error.error_class or "",
        field_violations=[{"field": each.field, "description": each.description} for each in error.violations],
    )
