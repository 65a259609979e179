"""Calls of a host's RPCs with bytes, for engines that have a transport of their own.

Rule of this module: it replaces gRPC's transport and nothing else. The handlers, and so the answers, statuses and
trailers, are those of the port.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]

MAX_UNREAD = 16
"""Number of messages of a stream that wait for their reader before the handler waits too."""


@dataclass(frozen=True)
class Response:
    """Answer of a unary call."""

    message: bytes
    trailers: Metadata


class CallError(Exception):
    """A call that ended with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata = ()) -> None:
        """Takes the status, its message and the trailers, which may have `grpc-status-details-bin`."""
        super().__init__(f"{code.name}: {details}")
        self.code, self.details, self.trailers = code, details, trailers


class InProcessCaller:
    """Calls the RPCs of some handlers in the event loop that they belong to."""

    def __init__(self, handlers: "Iterable[grpc.GenericRpcHandler]", *, peer: str = "in-process") -> None:
        """Takes the handlers of a host.

        Args:
            handlers: `Host.handlers`.
            peer: Address of the caller in log lines.

        """
        self._handlers = tuple(handlers)
        self._peer = peer

    async def unary(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout_s: float | None = None,
    ) -> Response:
        """Makes a call with one request and one answer.

        Args:
            path: Path of the method, such as `/MLflow/predict`.
            message: Serialized request.
            metadata: Metadata of the call; keys are in lower case.
            timeout_s: Time until the deadline, in seconds; None for no deadline.

        Raises:
            CallError: The call ended with an error status.

        """
        context = _Context(self._peer, tuple(metadata), timeout_s, message)
        handler = self._handler(path, context)

        async def run() -> bytes:
            async with _until_deadline(context):
                response: bytes = await handler.stream_unary(_no_messages(), context)
            return response

        # In a task of its own, because a handler holds the room of a large response until its task ends.
        response = await asyncio.ensure_future(run())
        return Response(response, context.trailers)

    def stream(
        self,
        path: str,
        messages: bytes | AsyncIterator[bytes],
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout_s: float | None = None,
    ) -> "ResponseStream":
        """Starts a call whose answer is a stream of messages.

        Args:
            path: Path of the method.
            messages: One serialized request, or an iterator over those of a stream.
            metadata: As in `unary`.
            timeout_s: As in `unary`.

        Raises:
            CallError: There is no such method.

        """
        context = _Context(self._peer, tuple(metadata), timeout_s, messages if isinstance(messages, bytes) else None)
        handler = self._handler(path, context)
        return ResponseStream(handler, _no_messages() if isinstance(messages, bytes) else messages, context)

    def _handler(self, path: str, context: "_Context") -> Any:
        details = SimpleNamespace(method=path, invocation_metadata=context.invocation_metadata())
        for generic_handler in self._handlers:
            if (handler := generic_handler.service(details)) is not None:
                return handler
        raise CallError(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


class ResponseStream(AsyncIterator[bytes]):
    """Messages of an answer. Iteration raises CallError if the call ends with an error status."""

    def __init__(self, handler: Any, requests: AsyncIterator[bytes], context: "_Context") -> None:
        self._context = context

        async def run() -> None:
            async with _until_deadline(context):
                await handler.stream_stream(requests, context)

        self._task = asyncio.ensure_future(run())
        self._task.add_done_callback(context.end)

    async def __anext__(self) -> bytes:
        message = await self._context.next()
        if message is None:
            await self._task
            raise StopAsyncIteration
        return message

    @property
    def trailers(self) -> Metadata:
        """Trailers of a call that has ended with OK."""
        return self._context.trailers

    def cancel(self) -> None:
        """Ends the call for a caller that reads no further."""
        self._task.cancel()


class _Context:
    """The part of `grpc.aio.ServicerContext` that handlers use."""

    def __init__(self, peer: str, metadata: Metadata, timeout_s: float | None, message: bytes | None) -> None:
        self.trailers: Metadata = ()
        self._sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MAX_UNREAD)
        self._peer = peer
        self._metadata = metadata
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._message = message

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}  # There is no connection, so there is no certificate.

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    async def read(self) -> object:
        message, self._message = self._message, None
        return grpc.aio.EOF if message is None else message

    async def write(self, message: bytes) -> None:
        await self._room.acquire()
        self._sent.put_nowait(message)

    async def next(self) -> bytes | None:
        """Returns the next message of the answer; None if the handler has ended."""
        message = await self._sent.get()
        self._room.release()
        return message

    def end(self, _: object) -> None:
        """Ends the answer."""
        self._sent.put_nowait(None)

    def set_trailing_metadata(self, trailers: Metadata) -> None:
        self.trailers = trailers

    async def abort(self, code: grpc.StatusCode, details: str = "", trailers: Metadata = ()) -> NoReturn:
        raise CallError(code, details, trailers)


@asynccontextmanager
async def _until_deadline(context: _Context) -> AsyncGenerator[None]:
    """Cancels a handler at the deadline, as gRPC does."""
    try:
        async with asyncio.timeout(context.time_remaining()):
            yield
    except TimeoutError:
        raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None


async def _no_messages() -> AsyncGenerator[bytes]:
    """Yields nothing: a handler reads its single request from the context."""
    return
    yield
