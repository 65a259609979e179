"""What every RPC of this server has in common: parsing, error answers, request ids and the log line.

Rule of this module: gRPC never answers by itself. `grpc.aio` answers UNKNOWN, with the exception's
text, to a message that does not parse, to any exception that leaves a handler and to a response that
does not serialise. So handlers are registered without serialisers; bytes are parsed and every exception
is translated here.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message

from mlflow_grpc import logs
from mlflow_grpc.engine.progress import Usage
from mlflow_grpc.errors import Fault, InvalidMessage, LateRequest, NotReady, Overloaded, ServingError, Status
from mlflow_grpc.protos import message_class
from mlflow_grpc.services import status
from mlflow_grpc.services.arrivals import Arrivals
from mlflow_grpc.services.circumstances import circumstances
from mlflow_grpc.services.handshakes import Handshakes
from mlflow_grpc.services.ignored import MOST_BYTES_OF_ERROR, IgnoredColumns
from mlflow_grpc.services.refusals import Refusals

if TYPE_CHECKING:
    from mlflow_grpc.engine.execution import Engine

    # Generic in the type stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Handlers = grpc.GenericRpcHandler

LONGEST_REQUEST_ID = 128

SHUTDOWN = "The server is shutting down."

OVERDUE = "The request did not arrive in time. Send it in smaller parts, or over a faster connection."

LARGE_ANSWER = 65_536
"""The size of an answer, in bytes, from which on it stays in the server until its caller reads: by HTTP/2's default, no
more is sent before.
"""

LONGEST_ARRIVAL_S = 300.0
"""How long a request may take to arrive, in seconds, if the time limit of a call is not longer."""

ARRIVAL_INTERVAL_S = 1.0
"""How often the server looks for requests that do not arrive, in seconds."""

_NOTHING: Mapping[str, Any] = {}


class Call:
    """One RPC as a servicer sees it.

    `write` and `abort` are as in a gRPC context, so that a library's servicer can be given a Call for one.
    """

    __slots__ = (
        "_metadata",
        "context",
        "end_reading",
        "engine",
        "ignored",
        "is_overdue",
        "is_read",
        "method",
        "model",
        "request_bytes",
        "request_id",
        "response_bytes",
        "started",
        "usage",
    )

    def __init__(self, method: str, context: "Context") -> None:
        self.method = method
        self.context = context
        self.model = ""  # The name of the model that is called, for log and errors; set by the door.
        self.engine: Engine  # What runs that model; there once a door has let the call in.
        self.end_reading: Callable[[], object] | None = None  # Of a stream; set by the servicer if it has a use for it.
        self.is_read = False  # Whether its request has arrived; of a stream, that there may be one.
        self.is_overdue = False
        self.ignored = IgnoredColumns()
        self.request_bytes = self.response_bytes = 0
        self.started = time.monotonic()
        self.usage = Usage()
        self._metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.request_id = _request_id(self.metadata(status.REQUEST_ID_KEY))

    def metadata(self, key: str) -> str | None:
        """The value that the caller sent under `key`, the last one if there are several."""
        return self._metadata.get(key)

    async def write(self, message: Message) -> None:
        """Sends one message of a stream; waits while the peer takes none."""
        await self.context.write(self.serialized(message))

    def serialized(self, message: Message) -> bytes:
        """An answer as bytes, counted."""
        data = message.SerializeToString()
        self.response_bytes += len(data)
        return data

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """Ends the call with an error status."""
        raise ServingError(
            details or f"{self.method} answered {code.name}.", status=Status(code.name), reason=code.name
        )


def _request_id(given: str | None) -> str:
    if given is not None and 0 < len(given) <= LONGEST_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return f"{random.getrandbits(64):016x}"


Behaviour = Callable[[Any, Call], Awaitable[Message | None]]
"""Takes the request, or an iterator of them, and the call; gives the answer, or None if it wrote a stream. The iterator
raises InvalidMessage in the place of a message that does not parse, and goes on after it.
"""


class Door(Protocol):
    """Where the calls of a service come in and go out."""

    def arrive(self, call: Call) -> None:
        """A call is there, and nothing of its request has been read; raises a ServingError to refuse it."""
        ...

    def depart(self, call: Call) -> None:
        """A call that was not refused has ended, one way or the other."""
        ...

    def hold(self, call: Call, size: int) -> None:
        """A large answer goes out, of so many bytes; raises a ServingError if there is no room to keep it."""
        ...

    def release(self, call: Call, size: int) -> None:
        """It has been read, or its caller has gone."""
        ...


class Calls:
    """Makes gRPC handlers out of servicers, and knows the calls that are open."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[Any], Call] = {}
        self._closing = False
        self.arrivals = Arrivals()
        self._refusals = Refusals()
        self.handshakes = Handshakes()

    def handlers(
        self,
        service: Any,
        servicer: Any,
        *,
        path: str | None = None,
        door: Door | Mapping[str, Door] | None = None,
        level: int = logging.DEBUG,
    ) -> "Handlers":
        """Handlers for a service.

        Args:
            service: Its descriptor; requests come in the classes of its pool.
            servicer: Has a coroutine function a method, of the method's name: `f(request, call)` returns the
                answer, or if the answer is a stream, writes to the call; requests come as an iterator if
                they are a stream.
            path: The service's full name on the wire, if not the descriptor's.
            door: Where calls arrive before anything of their request is read; or that of each method by its name.
            level: The level of the log line of a call that went well.

        """
        name = path or service.full_name
        return grpc.method_handlers_generic_handler(
            name,
            {
                method.name: self.handler(
                    f"/{name}/{method.name}",
                    method,
                    getattr(servicer, method.name),
                    door=door[method.name] if isinstance(door, Mapping) else door,
                    level=level,
                )
                for method in service.methods
            },
        )

    async def end_streams(self) -> None:
        """Has nothing more read from streams that would go on for ever, and waits until what was read is answered."""
        ending = []
        for task, call in self._open.items():
            if call.end_reading is not None:
                call.end_reading()
                ending.append(task)
        if ending:
            await asyncio.wait(ending)

    async def watch_arrivals(self, timeout_s: float) -> None:
        """Ends calls whose requests do not arrive, and tells of connections that come to nothing; for ever.

        Args:
            timeout_s: The time limit of a call, in seconds.

        """
        while True:
            await asyncio.sleep(ARRIVAL_INTERVAL_S)
            self.handshakes.tell(time.monotonic())
            latest = time.monotonic() - max(timeout_s, LONGEST_ARRIVAL_S)
            for task, call in self._open.items():
                if not call.is_read and not call.is_overdue and call.started < latest:
                    call.is_overdue = True
                    task.cancel()

    def end_all(self) -> None:
        """Ends every call that is still open with UNAVAILABLE: watchers of health, which would never end by
        themselves and hold up `Server.stop`, and calls to the model that the drain did not wait for.
        """
        self._closing = True
        self._refusals.write()
        for task in self._open:
            task.cancel()

    def handler(
        self,
        path: str,
        method: MethodDescriptor,
        behaviour: Behaviour,
        *,
        door: Door | None = None,
        level: int = logging.DEBUG,
    ) -> "Handler":
        """The handler of one method; see `handlers`.

        Args:
            path: The method's path on the wire.
            method: Its descriptor.
            behaviour: What answers it.
            door: Where its calls arrive.
            level: The level of the log line of a call that went well.

        """
        request_class = message_class(method.input_type)
        client_streaming = method.client_streaming

        async def handle(chunks: AsyncIterator[bytes], context: "Context") -> bytes | None:
            call = Call(path, context)
            answer = None
            task: Any = asyncio.current_task()
            self._open[task] = call
            self.arrivals.note(call.started)
            if self.handshakes.pending:
                self.handshakes.used(context.peer())
            arrived = False
            try:
                try:
                    if door is not None:
                        door.arrive(call)
                        arrived = True
                    if client_streaming:
                        call.is_read = True
                        request: Any = _Requests(request_class, chunks, call)
                    else:
                        data = await context.read()
                        call.is_read = True
                        request = _parse(request_class, data, call)
                    message = await behaviour(request, call)
                    answer = None if message is None else call.serialized(message)
                    if door is not None and answer is not None and len(answer) >= LARGE_ANSWER:
                        _hold(answer, call, door, task)
                finally:
                    self._open.pop(task, None)
                    if arrived and door is not None:
                        door.depart(call)
            except BaseException as error:  # noqa: BLE001 - every end of a call is told there
                await self._fail(call, error)
            context.set_trailing_metadata(((status.REQUEST_ID_KEY, call.request_id), *call.ignored.trailers()))
            _log(level, call, "OK", {"request_bytes": call.request_bytes, "response_bytes": call.response_bytes})
            return answer

        # Registered as if every method took a stream, which on the wire is the same: where `grpc.aio`
        # expects exactly one message it never answers a call that ends without any.
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(handle)
        return grpc.stream_unary_rpc_method_handler(handle)

    async def _fail(self, call: Call, error: BaseException) -> NoReturn:
        """Answers with an error status; every error of a call ends here."""
        context = call.context
        # gRPC's InternalError: nothing can be sent any more, since the caller has gone.
        if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
            if not self._closing and not call.is_overdue:
                remaining = context.time_remaining()
                is_late = remaining is not None and remaining <= 0
                _log(logging.INFO, call, "DEADLINE_EXCEEDED" if is_late else "CANCELLED")
                raise error
            error = NotReady(SHUTDOWN) if self._closing else LateRequest(OVERDUE)
        error = as_serving_error(error)
        level = _level_of(error)
        if isinstance(error, Overloaded):
            self._refusals.count(call.model, error.reason, error.message)
            level = logging.DEBUG
        _log(level, call, error.status.value, _said(error), error.__cause__)
        code, message, trailers = status.of_error(error, request_id=call.request_id, model=call.model)
        await context.abort(code, message, (*trailers, *call.ignored.trailers(MOST_BYTES_OF_ERROR)))


def _hold(answer: bytes, call: Call, door: Door, task: asyncio.Task[Any]) -> None:
    """Has an answer counted until it has been read: gRPC ends a call's task then."""
    size = len(answer)
    door.hold(call, size)
    task.add_done_callback(lambda _: door.release(call, size))


class _Requests(AsyncIterator[Message]):
    """The messages of a stream."""

    def __init__(self, request_class: type[Message], chunks: AsyncIterator[bytes], call: Call) -> None:
        self._request_class = request_class
        self._chunks = aiter(chunks)
        self._call = call

    async def __anext__(self) -> Message:
        return _parse(self._request_class, await anext(self._chunks), self._call)


def as_serving_error(error: BaseException) -> ServingError:
    """The error itself if it is foreseen, else one that says nothing of it but keeps it for the log."""
    if isinstance(error, ServingError):
        return error
    told = ServingError(
        "The server failed to answer. What happened is in its log, under the request id of this answer."
    )
    told.__cause__ = error
    return told


def log_failed_request(call: Call, error: ServingError, place: int) -> None:
    """Writes the log line of one request of a stream that failed; the places are counted from 0."""
    level = _level_of(error)
    if logs.calls.takes(level):
        fields = {**_identity(call, error.status.value), "place": place, **_said(error)}
        logs.calls.write(level, "request", fields, error.__cause__)


def _level_of(error: ServingError) -> int:
    if error.fault is Fault.CALLER:
        return logging.INFO
    return logging.ERROR if error.__cause__ else logging.WARNING


def _said(error: ServingError) -> dict[str, str]:
    return {"reason": error.reason, "error": error.logged}


def _parse(request_class: type[Message], data: Any, call: Call) -> Message:
    if data is grpc.aio.EOF:
        raise InvalidMessage(
            f"The call carries no whole message of type {request_class.DESCRIPTOR.full_name}, or one that is larger "
            "than the server takes."
        )
    call.request_bytes += len(data)
    try:
        return request_class.FromString(data)
    except DecodeError:
        raise InvalidMessage(
            f"The request is no valid protobuf message of type {request_class.DESCRIPTOR.full_name}, whose strings "
            "must be UTF-8, or is nested more than 100 messages deep, which protobuf does not read. Make it with code "
            "generated from the server's .proto file."
        ) from None


def _log(
    level: int, call: Call, code: str, more: Mapping[str, Any] = _NOTHING, cause: BaseException | None = None
) -> None:
    """Writes the one log line of a call."""
    if logs.calls.takes(level):
        duration_ms = round((time.monotonic() - call.started) * 1000, 3)
        fields = {**_identity(call, code), "duration_ms": duration_ms, **circumstances(call), **more}
        if call.ignored:
            fields["ignored_columns"] = len(call.ignored)
        logs.calls.write(level, "call", fields, cause)


def _identity(call: Call, code: str) -> dict[str, Any]:
    return {"request_id": call.request_id, "method": call.method, "model": call.model, "status": code}
