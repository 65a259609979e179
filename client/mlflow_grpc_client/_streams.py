"""The answers that a stream receives; `_requests` has the records it sends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc_client._calls import Stream
from mlflow_grpc_client._requests import Requests
from mlflow_grpc_client._results import Results
from mlflow_grpc_client.errors import PredictError, client_closed, failure

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self


class ResponseReader:
    """Reads the responses of a stream and its end, for both clients."""

    def __init__(self, results: Results, stream: Stream, requests: Requests | None) -> None:
        self._results = results
        self._stream = stream
        self._requests = requests
        self._count = 0
        self.is_over = False

    def answer(self, data: bytes) -> Any:
        """The answer in a response; raises the error in its place, unless errors are returned."""
        index, self._count = self._count, self._count + 1
        rejection = None if self._requests is None else self._requests.rejected.pop(index, None)
        answer = rejection or self._results.answer(self._stream, data, index)
        if isinstance(answer, PredictError) and self._stream.on_error == "raise":
            raise answer
        return answer

    def end(self, trailers: Any) -> None:
        """Handles status OK; raises the error that ended the records early."""
        self.is_over = True
        self._results.warn(self._stream, trailers)
        if self._requests is None:
            return
        if self._requests.failure is not None:
            raise self._requests.failure
        is_complete = self._requests.count == self._count or not self._stream.is_paired
        if not self._requests.is_exhausted or not is_complete:
            message = f"The server ended the stream of records before it had answered them all, after {self._count}."
            raise failure(grpc.StatusCode.INTERNAL, message)

    def error(self, error: grpc.RpcError) -> BaseException:
        """The exception to raise for a status that ended the stream."""
        self.is_over = True
        predict_error = self._results.error(self._stream, error)
        if self._requests is not None and self._requests.failure is not None:
            return self._requests.failure
        return predict_error


class Answers:
    """An iterator over the answers of a stream, in order.

    The error of a record is raised in its turn, and `next` goes on with the answer after it. A status that ends the
    stream is raised as a PredictError, and an exception of the user's records is raised after the answers to earlier
    records; both end the iterator. Closing it cancels the call. Threads that share it take turns.
    """

    def __init__(self, call: Any, responses: ResponseReader) -> None:
        self._call = call
        self._responses = responses
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with self._lock:  # gRPC's call is an iterator for one thread at a time.
            return self._next(self._responses)

    def _next(self, responses: ResponseReader) -> Any:
        if responses.is_over:
            raise StopIteration
        try:
            data = next(self._call)
        except StopIteration:
            responses.end(self._call.trailing_metadata())
            raise
        except grpc.RpcError as error:
            if responses.is_over:  # Another thread closed it meanwhile.
                raise StopIteration from None
            raise responses.error(error) from None
        return responses.answer(data)

    def close(self) -> None:
        """Ends the iterator, and cancels the call if it is still running."""
        self._responses.is_over = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAnswers:
    """`Answers` for asyncio, as an asynchronous iterator. The call is made when the first answer is awaited.

    Tasks that share it take turns. Garbage collection closes it.
    """

    def __init__(self, open_call: Callable[[], Awaitable[tuple[Any, ResponseReader]]], results: Results) -> None:
        """Takes a function that makes the call, and the results of the client."""
        self._open_call = open_call
        self._results = results
        self._call: Any = None
        self._responses: ResponseReader | None = None
        self._is_closed = False
        self._lock = asyncio.Lock()
        self._opening: asyncio.Future[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        async with self._lock:
            if self._is_closed or (self._responses is not None and self._responses.is_over):
                raise StopAsyncIteration
            responses = self._responses or await self._open()
            data = await self._read(responses)
            if data is grpc.aio.EOF:
                responses.end(await self._call.trailing_metadata())
                raise StopAsyncIteration
            return responses.answer(data)

    async def _open(self) -> ResponseReader:
        """Makes the call in a task of its own, so that `close` can end it without ending the user's task."""
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.ensure_future(self._open_call())
        try:
            self._call, self._responses = await self._opening
        except asyncio.CancelledError:
            if self._is_closed and not is_current_task_cancelled():
                raise StopAsyncIteration from None
            self._is_closed = True
            raise
        except BaseException:
            self._is_closed = True
            raise
        finally:
            self._opening = None
        if self._is_closed:  # Closed between the call and this line.
            self._call.cancel()
            raise StopAsyncIteration
        return self._responses

    def __del__(self) -> None:
        if self._call is not None and self._loop is not None and not self._call.done():
            with contextlib.suppress(RuntimeError):  # The loop is closed, and its calls with it.
                self._loop.call_soon_threadsafe(self._call.cancel)

    async def _read(self, responses: ResponseReader) -> Any:
        try:
            return await self._call.read()
        except grpc.RpcError as error:
            if self._is_closed:
                raise StopAsyncIteration from None
            raise await self._results.without_blocking(error, functools.partial(responses.error, error)) from None
        except asyncio.CancelledError:
            responses.is_over = True
            if is_current_task_cancelled():
                raise
            if self._is_closed:
                raise StopAsyncIteration from None
            if self._results.is_closed:
                raise client_closed() from None
            raise

    async def close(self) -> None:
        """Like `Answers.close`."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def is_current_task_cancelled() -> bool:
    """Returns True if someone has cancelled the current task, or there is none.

    Python 3.10 cannot tell a cancelled task from a task whose call was closed, so it counts both as not cancelled.
    """
    task = asyncio.current_task()
    if sys.version_info >= (3, 11):
        return task is None or task.cancelling() > 0
    return task is None
