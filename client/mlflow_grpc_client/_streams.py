"""Records of a stream going out, and its answers coming in.

Rule of this module: what goes wrong with a caller's records is told to the caller, and never by way of gRPC: it ends
the records, and is raised behind the answers to those before.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc_client import _compat
from mlflow_grpc_client.errors import PredictError, failure

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self

Read = Callable[[bytes], Any]
Fail = Callable[[grpc.RpcError], PredictError]


_PLACEHOLDER = b"\xff"
"""Sent for a record that is refused here already: bytes that are no message get an error in their place."""


class Requests:
    """Records as the bytes of requests, drawn one by one. Ends at the first that fails, and keeps what happened.

    One that cannot be sent does not end them where errors are returned: its error stands in the place of its answer.
    """

    def __init__(self, records: Any, encode: Callable[[Any], bytes], most_bytes: int, *, returns_errors: bool) -> None:
        """Args:
        records: An iterable of either kind.
        encode: Makes the bytes of one.
        most_bytes: How many the connection sends in one message; any number, if it is negative.
        returns_errors: Whether the error of a record that cannot be sent stands in its place; else it ends them.
        """
        self._returns_errors = returns_errors
        self._records = aiter(records) if hasattr(records, "__aiter__") else iter(records)
        self._encode = encode
        self._most_bytes = most_bytes
        self.failure: BaseException | None = None
        self.refused: dict[int, PredictError] = {}
        """What is wrong with records that the server would refuse if it saw them, by their places."""
        self.count = 0
        self.are_drawn = False
        """Whether there are no more."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = self._request(next(self._records))
        except StopIteration:
            self.are_drawn = True
            raise
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are taken
            self.failure = error
            raise StopIteration from None
        self.count += 1
        return data

    def _request(self, record: Any) -> bytes:
        """The bytes of a record.

        Raises:
            TypeError: It cannot be sent.
            ValueError: It cannot be sent, or is too large for the connection, which would end with it and with what
                is on its way.

        """
        try:
            return self._sendable(self._encode(record))
        except PredictError as error:
            self.refused[self.count] = error
            return _PLACEHOLDER
        except (TypeError, ValueError) as error:
            said = f"[{self.count}]: {error}"
            if not self._returns_errors:
                raise (TypeError if isinstance(error, TypeError) else ValueError)(said) from error
            refused = self.refused[self.count] = failure(grpc.StatusCode.INVALID_ARGUMENT, said, reason="BAD_REQUEST")
            refused.__cause__ = error
            return _PLACEHOLDER

    def _sendable(self, data: bytes) -> bytes:
        if 0 <= self._most_bytes < len(data):
            said = f"the message has {len(data)} bytes, and this client sends up to {self._most_bytes}"
            raise ValueError(f"{said} (max_message_bytes)")
        return data


class AsyncRequests(Requests):
    """The same for asyncio, of an iterable of either kind."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            is_async = hasattr(self._records, "__anext__")
            data = self._request(await anext(self._records) if is_async else next(self._records))
        except (StopIteration, StopAsyncIteration):
            self.are_drawn = True
            raise StopAsyncIteration from None
        except Exception as error:  # noqa: BLE001 - raised again where the answers are taken
            self.failure = error
            raise StopAsyncIteration from None
        self.count += 1
        return data


class Outcomes:
    """What the answers of a stream and its end mean, for either kind of waiting."""

    def __init__(
        self, read: Read, fail: Fail, warn: Callable[[Any], None], requests: Requests | None, *, returns_errors: bool
    ) -> None:
        self._read = read
        self._warn = warn
        self._fail = fail
        self._requests = requests
        self._returns_errors = returns_errors
        self._count = 0
        self.is_over = False

    def answer(self, data: bytes) -> Any:
        """An answer; raises the error that stands in its place, unless errors are returned."""
        refused = None if self._requests is None else self._requests.refused.pop(self._count, None)
        self._count += 1
        answer = refused or self._read(data)
        if isinstance(answer, PredictError) and not self._returns_errors:
            raise answer
        return answer

    def ended(self, trailers: Any) -> None:
        """The server has answered all; raises what ended the records before their time."""
        self.is_over = True
        self._warn(trailers)
        if self._requests is None:
            return
        if self._requests.failure is not None:
            raise self._requests.failure
        if not self._requests.are_drawn or self._requests.count != self._count:
            said = f"The server ended the stream of records before it had answered them all, after {self._count}."
            raise failure(grpc.StatusCode.INTERNAL, said)

    def broken(self, error: grpc.RpcError) -> BaseException:
        """What to raise for a status that ended the stream."""
        self.is_over = True
        found = self._fail(error)
        if self._requests is not None and self._requests.failure is not None:
            return self._requests.failure
        return found


class Answers:
    """The answers of a stream, in order: an iterator.

    An error that stands in the place of one answer is raised there; `next` goes on with the answer after it. A status
    that ends the stream is raised as a PredictError, and so is what the caller's own records raise, behind the answers
    to those before; then the iterator is at its end. Closing it cancels the call. Threads that share it take turns.
    """

    def __init__(self, call: Any, outcomes: Outcomes) -> None:
        self._call = call
        self._outcomes = outcomes
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with self._lock:  # gRPC's call is an iterator for one thread at a time.
            return self._next(self._outcomes)

    def _next(self, outcomes: Outcomes) -> Any:
        if outcomes.is_over:
            raise StopIteration
        try:
            data = next(self._call)
        except StopIteration:
            outcomes.ended(self._call.trailing_metadata())
            raise
        except grpc.RpcError as error:
            if outcomes.is_over:  # Closed while it waited, in another thread.
                raise StopIteration from None
            raise outcomes.broken(error) from None
        return outcomes.answer(data)

    def close(self) -> None:
        """Cancels the call, if it has not ended; there are no more answers."""
        self._outcomes.is_over = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAnswers:
    """`Answers` for asyncio: an asynchronous iterator. The call is made when the first answer is asked for.

    Tasks that share it take turns. One that nobody holds any more is closed.
    """

    def __init__(
        self,
        open_call: Callable[[], Awaitable[tuple[Any, Outcomes]]],
        is_closed: Callable[[], bool],
        find_out: Callable[[grpc.RpcError], Awaitable[None]],
    ) -> None:
        """Args:
        open_call: Makes the call.
        is_closed: Whether its client is closed.
        find_out: Finds out what an error of the call means, before that is told.
        """
        self._open_call = open_call
        self._is_closed = is_closed
        self._find_out = find_out
        self._call: Any = None
        self._outcomes: Outcomes | None = None
        self._is_over = False
        self._lock = asyncio.Lock()
        self._opening: asyncio.Future[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        async with self._lock:
            if self._is_over or (self._outcomes is not None and self._outcomes.is_over):
                raise StopAsyncIteration
            outcomes = self._outcomes or await self._open()
            data = await self._next(outcomes)
            if data is grpc.aio.EOF:
                outcomes.ended(await self._call.trailing_metadata())
                raise StopAsyncIteration
            return outcomes.answer(data)

    async def _open(self) -> Outcomes:
        """Makes the call, in a task of its own, so that `close` can end it without ending the caller's."""
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.ensure_future(self._open_call())
        try:
            self._call, self._outcomes = await self._opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_over and task is not None and not _compat.is_cancelled(task):
                raise StopAsyncIteration from None
            self._is_over = True
            raise
        except BaseException:
            self._is_over = True
            raise
        finally:
            self._opening = None
        if self._is_over:  # Closed in the moment between.
            self._call.cancel()
            raise StopAsyncIteration
        return self._outcomes

    def __del__(self) -> None:
        if self._call is not None and self._loop is not None and not self._call.done():
            with contextlib.suppress(RuntimeError):  # The loop is closed, and its calls with it.
                self._loop.call_soon_threadsafe(self._call.cancel)

    async def _next(self, outcomes: Outcomes) -> Any:
        try:
            return await self._call.read()
        except grpc.RpcError as error:
            if self._is_over:
                raise StopAsyncIteration from None
            await self._find_out(error)
            raise outcomes.broken(error) from None
        except asyncio.CancelledError:
            outcomes.is_over = True
            task = asyncio.current_task()
            if task is None or _compat.is_cancelled(task):
                raise
            if self._is_over:
                raise StopAsyncIteration from None
            if self._is_closed():
                raise failure(grpc.StatusCode.CANCELLED, "The client is closed.") from None
            raise

    async def close(self) -> None:
        """As `Answers.close`."""
        self._is_over = True
        if self._opening is not None:
            self._opening.cancel()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
